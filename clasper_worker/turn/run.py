"""One agent turn, from request to posted reply."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import structlog

from clasper_worker.errors import BackendConflictError, BackendNotFoundError
from clasper_worker.llm.catalogue import Tier
from clasper_worker.llm.cost import Usage, turn_cost
from clasper_worker.llm.messages import ChatMessage, ChatModel, TokenUsage
from clasper_worker.mission_control.client import AgentBackend, MissionControl
from clasper_worker.mission_control.idempotency import turn_step_key
from clasper_worker.mission_control.task_finder import TaskFinder
from clasper_worker.mission_control.tokens import AgentIdentity
from clasper_worker.prompt.builder import build_prompt
from clasper_worker.prompt.models import PromptInputs
from clasper_worker.prompt.snapshot import WorkspaceSnapshot
from clasper_worker.tools.registry import Toolbox, ToolContext
from clasper_worker.turn.history import load_history
from clasper_worker.turn.identity import TurnIdentity
from clasper_worker.turn.loop import Answer, converse
from clasper_worker.turn.request import DEFAULT_PLAN_TITLE, SendRequest
from clasper_worker.turn.resolve import ResolvedTask, resolve_task
from clasper_worker.turn.result import TurnResult

REPLY_STEP = "reply"
"""The step whose key the turn's one outcome is posted under, be it the reply or a timeout."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """What the operator configured about turns.

    Attributes:
        max_steps: model calls per turn at most.
        history_limit: messages read from the backend at most.
        default_task: title of the task for requests that name none.
        timezone: IANA name, for requests that name none.
        include_time: whether the prompt tells the time.
    """

    max_steps: int = 16
    history_limit: int = 50
    default_task: str | None = None
    timezone: str = "UTC"
    include_time: bool = True


@dataclass(frozen=True, slots=True)
class TurnDependencies:
    """The collaborators of a turn."""

    mission_control: MissionControl
    tasks: TaskFinder
    toolbox: Toolbox
    workspace: Callable[[], WorkspaceSnapshot]
    model: Callable[[Tier], ChatModel]
    now: Callable[[], datetime]
    settings: TurnSettings


@dataclass(slots=True)
class TurnProgress:
    """How far a turn has come, for whoever has to end it early."""

    task: ResolvedTask | None = None


async def run_turn(
    request: SendRequest,
    turn: TurnIdentity,
    deps: TurnDependencies,
    progress: TurnProgress | None = None,
) -> TurnResult:
    """Resolve the task, build the prompt, converse with the model, post the reply.

    Raises:
        ClasperError: the turn failed; nothing empty was posted, and what was posted carries keys
            under which a repetition of the turn posts nothing twice.
    """
    backend = deps.mission_control.as_agent(AgentIdentity(request.user_id, request.role))
    task = await resolve_task(
        request, backend, deps.tasks, default_title=deps.settings.default_task
    )
    if progress is not None:
        progress.task = task
    with _naming_the_task(request):
        history = await load_history(request, backend, task.id, limit=deps.settings.history_limit)

    def context_for(step: str) -> ToolContext:
        key = turn_step_key(request.user_id, turn.turn_id, step)
        return ToolContext(backend, deps.tasks, task.id, key)

    answer = await converse(
        deps.model(request.metadata.model_tier),
        _opening(request, task, history, deps),
        deps.toolbox,
        context_for,
        max_steps=deps.settings.max_steps,
    )
    with _naming_the_task(request):
        await _deliver(request, turn, backend, task, answer.text)
    return _result(turn, task, answer)


@contextmanager
def _naming_the_task(request: SendRequest) -> Iterator[None]:
    """Where the backend knows no such task, say which one the request named."""
    try:
        yield
    except BackendNotFoundError as exc:
        if request.task_id is None:
            raise
        raise BackendNotFoundError(
            f"The backend has no task {request.task_id!r} for this user: check task_id, or leave"
            " it out and give task_title",
            {**exc.details, "field": "task_id"},
        ) from exc


def _opening(
    request: SendRequest,
    task: ResolvedTask,
    history: tuple[ChatMessage, ...],
    deps: TurnDependencies,
) -> list[ChatMessage]:
    """System prompt, history, newest message.

    What is stable comes first, so that a provider's prompt cache covers all but the newest.
    """
    prompt = build_prompt(
        deps.workspace(),
        PromptInputs(
            role=request.role,
            now=deps.now(),
            timezone=request.metadata.timezone or deps.settings.timezone,
            include_time=deps.settings.include_time,
            system_prompt_override=request.metadata.system_prompt,
            task_title=task.title,
            tool_names=deps.toolbox.names,
            forced_skills=request.metadata.forceIncludeSkills,
        ),
    )
    for warning in prompt.warnings:
        log.warning("prompt.warning", subject=warning.subject, problem=warning.problem)
    newest = request.instruction
    if prompt.turn_context:
        newest = f"{prompt.turn_context}\n\n{newest}"
    return [ChatMessage("system", prompt.system), *history, ChatMessage("user", newest)]


async def _deliver(
    request: SendRequest,
    turn: TurnIdentity,
    backend: AgentBackend,
    task: ResolvedTask,
    text: str,
) -> None:
    def key(step: str) -> str:
        return turn_step_key(request.user_id, turn.turn_id, step)

    try:
        await backend.post_message(task_id=task.id, content=text, idempotency_key=key(REPLY_STEP))
    except BackendConflictError:
        log.info("turn.reply_already_posted", turn_id=turn.turn_id)
    if not request.metadata.kickoff_plan:
        return
    try:
        await backend.create_document(
            task_id=task.id,
            title=request.metadata.plan_title or DEFAULT_PLAN_TITLE,
            content=text,
            doc_type="plan",
            idempotency_key=key("plan"),
        )
    except BackendConflictError:
        log.info("turn.plan_already_posted", turn_id=turn.turn_id)


def _result(turn: TurnIdentity, task: ResolvedTask, answer: Answer) -> TurnResult:
    used = sum((reply.usage for reply in answer.replies), TokenUsage())
    return TurnResult(
        turn_id=turn.turn_id,
        task_id=task.id,
        trace_id=turn.trace_id,
        response=answer.text,
        usage=Usage(
            prompt_tokens=used.prompt,
            completion_tokens=used.completion,
            total_tokens=used.prompt + used.completion,
        ),
        cost=turn_cost(answer.replies),
        tool_calls=answer.tool_calls,
    )
