"""A heartbeat: an agent turn that nobody asked for, on the workspace's ``HEARTBEAT.md``.

It is light (minimal prompt, cheap model, little history), it takes its session only while that is
free, and is cancelled when another turn arrives there (`engine/queue/lua/intake.lua`). What needs
attention is posted; that all is well is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from pydantic import Field

from clasper_worker.config.local_time import ActiveHours
from clasper_worker.config.settings import Settings
from clasper_worker.engine.pool.soft_limit import SoftLimitScope
from clasper_worker.errors import (
    BackendNotFoundError,
    BackendProtocolError,
    BackendRejectedError,
    TurnConflictError,
)
from clasper_worker.mission_control.agent_tokens import AgentIdentity
from clasper_worker.mission_control.client import AgentBackend
from clasper_worker.observability import metrics
from clasper_worker.periodic.agents import Agent
from clasper_worker.prompt.sanitize import fence_data, json_for_model
from clasper_worker.prompt.workspace.snapshot import HEARTBEAT_FILE
from clasper_worker.turn.context import TurnDependencies
from clasper_worker.turn.journal_store import MemoryLedger
from clasper_worker.turn.models import TurnIdentity
from clasper_worker.turn.request import RequestLimits, SendRequest
from clasper_worker.turn.run import TurnRun

HEARTBEAT_OK = "HEARTBEAT_OK"
DEFAULT_TITLE = "Heartbeat"
"""The task that a heartbeat's words go to, where no default is configured."""

CLOSED_STATUSES = frozenset({"done", "completed", "cancelled", "canceled", "closed", "archived"})

_SHORT_CHARS = 120  # what may stand beside HEARTBEAT_OK without being worth a message
_HISTORY = 6  # enough not to repeat itself
_TASKS_READ = 200
_TASKS_SHOWN = 20
_NOTIFICATIONS_READ = 500
_NOTIFICATIONS_SHOWN = 20
_VIEW_CHARS = 6_000
_SPACES = "".join(char for char in map(chr, range(0x3001)) if char.isspace())
_MARKUP = f"{_SPACES}*_`\"'"

_RULE = (
    f"If nothing needs attention, reply with exactly: {HEARTBEAT_OK}\n"
    "Anything else that you reply is posted to the user."
)

Skip = Literal[
    "no_heartbeat_file",
    "empty_heartbeat_file",
    "outside_active_hours",
    "busy",
    "repeated",
    "timed_out",
]

log = structlog.get_logger(__name__)


class HeartbeatRequest(SendRequest):
    """The request of a heartbeat's turn.

    Attributes:
        view: what there is to look at: open tasks, notifications.
    """

    view: str = Field(default="", exclude=True, repr=False)

    @property
    def prompt_mode(self) -> Literal["full", "minimal"]:
        """The light one."""
        return "minimal"

    def history_limit(self, configured: int) -> int:
        """The last few, so that it does not repeat itself."""
        return min(configured, _HISTORY)

    def visible(self, reply: str) -> str | None:
        """The reply, unless it says that nothing needs attention."""
        return None if is_quiet(reply) else reply

    @property
    def instruction(self) -> str:
        """What is there to be seen, then what to do about it."""
        return "\n\n".join(part for part in (self.view, self.message, _RULE) if part)


@dataclass(frozen=True, slots=True)
class HeartbeatRules:
    """How heartbeats are run.

    Attributes:
        title: of the task that they post to.
        timezone: of agents that have none of their own.
        hours: of agents that have none of their own.
        limits: caps on a turn's request.
    """

    title: str = DEFAULT_TITLE
    timezone: str = "UTC"
    hours: str = "00:00-24:00"
    limits: RequestLimits = RequestLimits()  # noqa: RUF009 - frozen

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """As configured."""
        return cls(
            settings.clasper_default_task or DEFAULT_TITLE,
            settings.clasper_default_timezone,
            settings.clasper_active_hours,
            RequestLimits.from_settings(settings),
        )


@dataclass(frozen=True, slots=True)
class HeartbeatReport:
    """What a heartbeat did.

    Attributes:
        status: ``ok``, nothing needed attention; ``posted``; or ``skipped``.
        reason: why it was skipped.
        turn_id: of its turn.
        task_id: the task that it looked at and may have posted to.
        tool_calls: that the agent made.
    """

    status: Literal["ok", "posted", "skipped"]
    reason: Skip | None = None
    turn_id: str | None = None
    task_id: str | None = None
    tool_calls: int = 0

    def as_json(self) -> dict[str, Any]:
        """As JSON types, without what is not set."""
        fields = {
            "status": self.status,
            "reason": self.reason,
            "turn_id": self.turn_id,
            "task_id": self.task_id,
            "tool_calls": self.tool_calls,
        }
        return {name: value for name, value in fields.items() if value is not None}


def skipped(reason: Skip) -> HeartbeatReport:
    """Count and report a heartbeat that did not take place."""
    metrics.count("heartbeat", reason)
    log.info("heartbeat.skipped", reason=reason)
    return HeartbeatReport("skipped", reason)


def is_quiet(reply: str) -> bool:
    """Whether a reply says no more than that nothing needs attention.

    That is `HEARTBEAT_OK` at its beginning or end, in any markup, and little else.
    """
    text = reply.lstrip(f"{_MARKUP}>#").rstrip(_MARKUP)
    if not (text.startswith(HEARTBEAT_OK) or text.rstrip(".!").endswith(HEARTBEAT_OK)):
        return False
    return len(text) - len(HEARTBEAT_OK) <= _SHORT_CHARS


async def run_heartbeat(
    agent: Agent,
    turn: TurnIdentity,
    deps: TurnDependencies,
    rules: HeartbeatRules,
    *,
    any_time: bool = False,
) -> HeartbeatReport:
    """Run one heartbeat.

    Args:
        agent: whose.
        turn: the identity of its turn.
        deps: the turn's collaborators.
        rules: the operator's.
        any_time: whether active hours are left out of account.

    Raises:
        ClasperError: its turn failed.
    """
    snapshot = deps.workspace(None, agent.user_id)
    if HEARTBEAT_FILE not in snapshot.files:
        return skipped("no_heartbeat_file")
    checklist = snapshot.text(HEARTBEAT_FILE)
    if checklist is None or not _says_something(checklist):
        return skipped("empty_heartbeat_file")
    zone = agent.timezone or rules.timezone
    if not any_time and not _is_active(agent, rules, deps.now(), zone):
        return skipped("outside_active_hours")
    backend = deps.mission_control.as_agent(
        AgentIdentity(agent.user_id, agent.agent_role), deps.lease.confirm
    )
    request = HeartbeatRequest.model_validate(
        {
            "user_id": agent.user_id,
            "agent_role": agent.agent_role,
            "message": checklist,
            "task_title": rules.title,
            "metadata": {"model_tier": "cheap", "timezone": zone},
            "view": await look_around(backend),
        },
        context=rules.limits,
    )
    return await _run(request, turn, deps)


async def _run(
    request: HeartbeatRequest, turn: TurnIdentity, deps: TurnDependencies
) -> HeartbeatReport:
    # No journal in Redis: of a worker that dies, another asks the cheap model once more, and what
    # was posted is not posted twice.
    light = replace(deps, ledger=MemoryLedger())
    try:
        async with SoftLimitScope():
            result = await TurnRun(request, turn, light, kind="heartbeat").run()
    except SoftTimeLimitExceeded:
        return skipped("timed_out")
    except TurnConflictError:
        return skipped("repeated")
    except asyncio.CancelledError:
        metrics.count("heartbeat", "gave_way")
        raise
    status: Literal["ok", "posted"] = "ok" if is_quiet(result.response) else "posted"
    metrics.count("heartbeat", status)
    log.info("heartbeat.done", outcome=status, tool_calls=result.tool_calls)
    return HeartbeatReport(status, None, turn.turn_id, result.task_id, result.tool_calls)


async def look_around(backend: AgentBackend) -> str:
    """Record the heartbeat where the backend does so, and put what is there into words.

    Raises:
        BackendError: the backend failed.
    """
    shown: list[str] = []
    payload: Mapping[str, Any] = {}
    if await backend.has("heartbeat"):
        try:
            payload = await backend.record_heartbeat()
        except (BackendNotFoundError, BackendRejectedError) as exc:
            log.warning("heartbeat.not_recorded", reason=str(exc))
        except BackendProtocolError:
            log.debug("heartbeat.recorded_without_a_view")
        else:
            shown.append(_data("heartbeat", payload))
    # Unless the backend's own view has them.
    if not any("notification" in name for name in payload) and await backend.has("notifications"):
        found = await backend.notifications(at_most=_NOTIFICATIONS_READ)
        unread = [item for item in found if not _is_read(item)]
        shown.append(_data("unread notifications", unread[-_NOTIFICATIONS_SHOWN:]))
    tasks: list[dict[str, str]] = []
    read = 0
    async for task in backend.tasks():
        read += 1
        if task.status.lower() not in CLOSED_STATUSES:
            tasks.append({"id": task.id, "title": task.title, "status": task.status})
        if read >= _TASKS_READ:
            break
    shown.append(_data("open tasks", tasks[-_TASKS_SHOWN:]))
    return "\n\n".join(shown)


def _is_active(agent: Agent, rules: HeartbeatRules, now: datetime, zone: str) -> bool:
    hours = ActiveHours.parse(agent.active_hours or rules.hours)
    return hours.includes(now.astimezone(ZoneInfo(zone)))


def _says_something(checklist: str) -> bool:
    """Whether there is more to it than headings and empty list items."""
    lines = (line.strip() for line in checklist.splitlines())
    return any(line.strip("-*+[] \t") for line in lines if not line.startswith("#"))


def _is_read(item: Mapping[str, Any]) -> bool:
    return bool(item.get("delivered_at") or item.get("read_at") or item.get("read"))


def _data(label: str, value: Any) -> str:
    return fence_data(label, json_for_model(value, _VIEW_CHARS, "… (cut)"))
