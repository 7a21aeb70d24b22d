"""The day's standup of an agent: the backend's own, or one that the agent writes from the tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo

import structlog

from clasper_worker.config.settings import Settings
from clasper_worker.errors import BackendConflictError
from clasper_worker.llm.messages import ChatMessage
from clasper_worker.mission_control.agent_tokens import AgentIdentity
from clasper_worker.mission_control.client import AgentBackend
from clasper_worker.mission_control.idempotency import turn_step_key
from clasper_worker.observability import metrics
from clasper_worker.periodic.agents import Agent
from clasper_worker.periodic.heartbeat import CLOSED_STATUSES
from clasper_worker.periodic.notes import Slots
from clasper_worker.prompt.builder import build_prompt
from clasper_worker.prompt.models import PromptInputs
from clasper_worker.prompt.sanitize import fence_data, strip_unsafe_json
from clasper_worker.turn.context import TurnDependencies

DEFAULT_TITLE = "Standup"
"""The task that standups belong to, where no default is configured."""

_TASKS_READ = 500
_TASKS_SHOWN = 60
_PAGE = 50
_WORKING_SECONDS = 600.0  # how long a standup that is being written keeps others from it
_DONE_SECONDS = 259_200.0
_FIELDS = ("title", "status", "description", "updated_at", "created_at")
_FIELD_CHARS = 300

_INSTRUCTION = (
    "Write the standup of {day} for the user, in Markdown, from the tasks above and nothing else:"
    " what is done, what is being done and comes next, what is blocked and by what. A few lines"
    " each; what changed last comes first; leave a heading out that has nothing under it. Reply"
    " with the standup alone."
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StandupReport:
    """What became of a standup.

    Attributes:
        status: ``created``; ``exists``, the day has one; ``skipped``, there are no tasks; or
            ``dry_run``.
        day: of the agent's time zone.
        source: who wrote it.
        document_id: where the backend says it.
        text: what it says, of a dry run.
    """

    status: Literal["created", "exists", "skipped", "dry_run"]
    day: date
    source: Literal["backend", "agent"] | None = None
    document_id: str | None = None
    text: str | None = field(default=None, repr=False)

    def as_json(self) -> dict[str, Any]:
        """As JSON types, without what is not set, and without the text."""
        fields = {
            "status": self.status,
            "day": self.day.isoformat(),
            "source": self.source,
            "document_id": self.document_id,
        }
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class StandupRules:
    """How standups are written.

    Attributes:
        title: of the task that they belong to.
        timezone: of agents that have none of their own.
    """

    title: str = DEFAULT_TITLE
    timezone: str = "UTC"

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """As configured."""
        return cls(
            settings.clasper_default_task or DEFAULT_TITLE,
            settings.standup_timezone or settings.clasper_default_timezone,
        )


async def run_standup(
    agent: Agent,
    deps: TurnDependencies,
    slots: Slots,
    rules: StandupRules,
    *,
    holder: str,
    day: date | None = None,
    dry_run: bool = False,
) -> StandupReport:
    """Make the agent's standup of a day, unless there is one.

    Args:
        agent: whose.
        deps: a turn's collaborators.
        slots: notes that all workers share.
        rules: the operator's.
        holder: names this run: a repetition of it goes on where it stopped.
        day: the day that it is due for, which may be over when it is made late; today where None.
        dry_run: write it, and post nothing.

    Raises:
        ClasperError: the backend, the model or Redis failed; a later run may do better.
    """
    zone = agent.timezone or rules.timezone
    day = day or deps.now().astimezone(ZoneInfo(zone)).date()
    backend = deps.mission_control.as_agent(AgentIdentity(agent.user_id, agent.agent_role))
    if dry_run:
        return await _dry_run(agent, deps, backend, zone, day)
    slot = f"standup:{agent.name}:{day.isoformat()}"
    if not await slots.claim(slot, holder, _WORKING_SECONDS):
        return _counted(StandupReport("exists", day))
    try:
        report = await _make(agent, deps, backend, rules, zone, day)
    except BaseException:
        await slots.release(slot, holder)
        raise
    await slots.write([slot], "done", _DONE_SECONDS)
    return _counted(report)


async def _make(
    agent: Agent,
    deps: TurnDependencies,
    backend: AgentBackend,
    rules: StandupRules,
    zone: str,
    day: date,
) -> StandupReport:
    if await backend.has("standup"):
        answer = await backend.standup(zone)
        status: Literal["created", "exists"] = (
            "exists" if answer.get("created") is False else "created"
        )
        named = answer.get("document_id")
        return StandupReport(status, day, "backend", None if named is None else str(named))
    text = await _write(agent, deps, backend, zone, day)
    if text is None:
        return StandupReport("skipped", day)
    found = await deps.tasks.find_or_create(backend, rules.title)
    key = turn_step_key(agent.user_id, f"{agent.agent_role}:{day.isoformat()}", "standup")
    try:
        document = await backend.create_document(
            task_id=found.task.id,
            title=f"Standup {day.isoformat()}",
            content=text,
            doc_type="standup",
            idempotency_key=key,
        )
    except BackendConflictError:  # another run posted its own words
        return StandupReport("exists", day, "agent")
    return StandupReport("created", day, "agent", document.id)


async def _dry_run(
    agent: Agent, deps: TurnDependencies, backend: AgentBackend, zone: str, day: date
) -> StandupReport:
    if await backend.has("standup"):
        return StandupReport("dry_run", day, "backend")
    text = await _write(agent, deps, backend, zone, day)
    if text is None:
        return StandupReport("skipped", day)
    return StandupReport("dry_run", day, "agent", text=text)


async def _write(
    agent: Agent, deps: TurnDependencies, backend: AgentBackend, zone: str, day: date
) -> str | None:
    """The standup in the agent's words; None where there are no tasks to tell of."""
    tasks = await _tasks(backend)
    if not tasks:
        return None
    prompt = build_prompt(
        deps.workspace(None, agent.user_id),
        PromptInputs(role=agent.agent_role, now=deps.now(), timezone=zone, mode="minimal"),
    )
    data = json.dumps(strip_unsafe_json(tasks), ensure_ascii=False)
    asked = (
        prompt.turn_context,
        fence_data("tasks", data),
        _INSTRUCTION.format(day=day.isoformat()),
    )
    reply = await deps.model("default").complete(
        [
            ChatMessage("system", prompt.system),
            ChatMessage("user", "\n\n".join(part for part in asked if part)),
        ]
    )
    return reply.text


async def _tasks(backend: AgentBackend) -> list[dict[str, str]]:
    """The user's tasks as the agent is shown them: open ones first, of each the newest change."""
    items: list[Mapping[str, Any]] = []
    cursor: str | None = None
    while len(items) < _TASKS_READ:
        page = await backend.list_tasks(limit=_PAGE, cursor=cursor)
        items += page.items
        if page.next_cursor is None or page.next_cursor == cursor:
            break
        cursor = page.next_cursor
    items.sort(key=_changed, reverse=True)
    items.sort(key=lambda item: str(item.get("status")).lower() in CLOSED_STATUSES)
    return [
        {name: str(item[name])[:_FIELD_CHARS] for name in _FIELDS if item.get(name) is not None}
        for item in items[:_TASKS_SHOWN]
    ]


def _changed(item: Mapping[str, Any]) -> str:
    return str(item.get("updated_at") or item.get("created_at") or "")


def _counted(report: StandupReport) -> StandupReport:
    metrics.count("standup", report.status)
    log.info("standup.done", outcome=report.status, source=report.source)
    return report
