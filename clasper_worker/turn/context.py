"""What a turn works with: its collaborators and settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from clasper_worker.engine.queue.delivery import Lease, NoLease
from clasper_worker.llm.messages import ChatModel
from clasper_worker.llm.providers.catalogue import Tier
from clasper_worker.llm.windows import ModelWindow, unknown_window
from clasper_worker.mission_control.agent_tokens import AgentIdentity
from clasper_worker.mission_control.client import AgentBackend, MissionControl, OnCreated
from clasper_worker.mission_control.task_finder import TaskFinder
from clasper_worker.observability.events import TurnEvents
from clasper_worker.prompt.models import PromptSettings
from clasper_worker.prompt.retrieval.smart_context import SmartContext
from clasper_worker.prompt.workspace.snapshot import WorkspaceSnapshot
from clasper_worker.tools.registry import Toolbox
from clasper_worker.turn.journal_store import TurnLedger
from clasper_worker.turn.request import SendRequest


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """What the operator configured about turns.

    Attributes:
        max_steps: model calls per turn at most.
        history_limit: messages read from the backend at most.
        default_task: title of the task for requests that name none.
        prompt: about prompts.
        soft_limit_seconds: how long a turn may take, all its runs together; None where whoever
            runs it sees to that.
        streams_always: whether each turn's text is reported as it comes, asked for or not.
    """

    max_steps: int = 16
    history_limit: int = 50
    default_task: str | None = None
    prompt: PromptSettings = field(default_factory=PromptSettings)
    soft_limit_seconds: float | None = None
    streams_always: bool = False


@dataclass(frozen=True, slots=True)
class TurnDependencies:
    """The collaborators of a turn.

    ``workspace`` gives what a workspace says now, by the name that the request asks for and the
    user; ``smart`` chooses from it, where it is not None; ``window`` is what a tier's models take;
    ``events`` is told of each step,
    ``on_created`` of what the backend has made.
    """

    mission_control: MissionControl
    ledger: TurnLedger
    tasks: TaskFinder
    toolbox: Toolbox
    workspace: Callable[[str | None, str], WorkspaceSnapshot]
    model: Callable[[Tier], ChatModel]
    now: Callable[[], datetime]
    settings: TurnSettings
    window: Callable[[Tier], ModelWindow] = unknown_window
    smart: SmartContext | None = None
    lease: Lease = field(default_factory=NoLease)
    events: TurnEvents = field(default_factory=TurnEvents)
    on_created: OnCreated | None = None

    def backend(self, request: SendRequest) -> AgentBackend:
        """Mission Control as the request's agent; each POST to it confirms the lease."""
        identity = AgentIdentity(request.user_id, request.role)
        return self.mission_control.as_agent(identity, self.lease.confirm, self.on_created)
