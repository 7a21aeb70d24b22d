"""The agents that are about: their register, their heartbeats, and the daily standup."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Request, Response

from clasper_worker.devkit.reference_backend.access import (
    AgentDep,
    BackendDep,
    Cursor,
    InternalOnly,
    Limit,
    feature,
    own_tenant,
)
from clasper_worker.devkit.reference_backend.answers import (
    Heartbeat,
    Page,
    RegisteredAgent,
    Standup,
    shows,
)
from clasper_worker.devkit.reference_backend.records import (
    AGENTS,
    DOCUMENTS,
    JsonItem,
    get,
    insert,
    now,
    page,
)
from clasper_worker.devkit.reference_backend.routes.notifications import undelivered_of
from clasper_worker.devkit.reference_backend.routes.tasks import (
    CLOSED_STATUSES,
    count_by_status,
    titles,
)
from clasper_worker.devkit.reference_backend.schemas import AgentEntry, HeartbeatBody, StandupBody
from clasper_worker.devkit.reference_backend.store import Transaction

router = APIRouter(prefix="/api/mission-control", tags=["heartbeat and standup"])
agents = APIRouter(
    prefix="/api/mission-control/agents",
    tags=["agents (internal token)"],
    dependencies=[Depends(feature("agents")), InternalOnly],
)

_SHOWN_NOTIFICATIONS = 20
_SHOWN_TITLES = 10


@agents.get("", responses=shows(Page[RegisteredAgent]))
async def list_agents(backend: BackendDep, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """Who gets heartbeats and standups, over all users."""
    return backend.answer(lambda connection: page(connection, AGENTS, {}, limit, cursor))


@agents.post("", responses=shows(RegisteredAgent))
async def register_agent(backend: BackendDep, body: AgentEntry) -> Response:
    """Add an agent, or replace what is known of it (ours, beyond the contract)."""

    def work(transaction: Transaction) -> JsonItem:
        transaction.execute(
            "INSERT INTO agents (user_id, agent_role, timezone, active_hours) "
            "VALUES (:user_id, :agent_role, :timezone, :active_hours) "
            "ON CONFLICT (user_id, agent_role) DO UPDATE "
            "SET timezone = excluded.timezone, active_hours = excluded.active_hours",
            body.model_dump(),
        )
        return body.model_dump(exclude_none=True)

    return await backend.change(work)


@router.post("/heartbeat", dependencies=[Depends(feature("heartbeat"))], responses=shows(Heartbeat))
async def heartbeat(
    request: Request, backend: BackendDep, agent: AgentDep, body: HeartbeatBody
) -> Response:
    """Record that the agent is there, and tell it what waits."""
    own_tenant(agent, body.user_id)

    def work(transaction: Transaction) -> JsonItem:
        moment = now()
        total = transaction.execute(
            "INSERT INTO heartbeats (user_id, agent_role, last_at, total) VALUES (?, ?, ?, 1) "
            "ON CONFLICT (user_id, agent_role) DO UPDATE "
            "SET last_at = excluded.last_at, total = total + 1 RETURNING total",
            (agent.user_id, agent.agent_role, moment),
        ).fetchone()[0]
        counts = count_by_status(transaction, agent.user_id)
        return {
            "status": "ok",
            "user_id": agent.user_id,
            "agent_role": agent.agent_role,
            "recorded_at": moment,
            "heartbeats": total,
            "open_tasks": sum(
                count for status, count in counts.items() if status not in CLOSED_STATUSES
            ),
            "tasks_by_status": counts,
            "undelivered_notifications": undelivered_of(
                transaction, agent.user_id, _SHOWN_NOTIFICATIONS
            ),
        }

    return await backend.change_once(request, agent.user_id, body, work)


@router.post("/standup", dependencies=[Depends(feature("standup"))], responses=shows(Standup))
async def standup(
    request: Request, backend: BackendDep, agent: AgentDep, body: StandupBody
) -> Response:
    """The day's standup: a summary of the user's tasks, kept as a document of type `standup`.

    There is one for each user and day, the day being that of `timezone`. Later calls of the same
    day get that one again, with `created` false.
    """
    own_tenant(agent, body.user_id)
    timezone = body.timezone or "UTC"
    day = datetime.now(ZoneInfo(timezone)).date().isoformat()

    def work(transaction: Transaction) -> JsonItem:
        known = transaction.execute(
            "SELECT document_id FROM standups WHERE user_id = ? AND day = ?", (agent.user_id, day)
        ).fetchone()
        if known is not None:
            document = get(transaction, DOCUMENTS, agent.user_id, known["document_id"])
        else:
            summary = summarise(transaction, agent.user_id, day)
            document = insert(
                transaction,
                DOCUMENTS,
                agent.user_id,
                {"title": f"Standup {day}", "doc_type": "standup", "content": summary},
            )
            transaction.execute(
                "INSERT INTO standups (user_id, day, document_id) VALUES (?, ?, ?)",
                (agent.user_id, day, document["id"]),
            )
        return {
            "status": "ok",
            "user_id": agent.user_id,
            "day": day,
            "timezone": timezone,
            "summary": document["content"],
            "document_id": document["id"],
            "created": known is None,
        }

    return await backend.change_once(request, agent.user_id, body, work)


def summarise(transaction: Transaction, user_id: str, day: str) -> str:
    """A standup as plain text: how many tasks, and the first titles of each status."""
    counts = count_by_status(transaction, user_id)
    if not counts:
        return f"Standup {day}: no tasks."
    total = sum(counts.values())
    lines = [f"Standup {day}: {total} {'task' if total == 1 else 'tasks'}."]
    for status, count in counts.items():
        shown = "; ".join(titles(transaction, user_id, status, _SHOWN_TITLES))
        more = f"; and {count - _SHOWN_TITLES} more" if count > _SHOWN_TITLES else ""
        lines.append(f"{status} ({count}): {shown}{more}")
    return "\n".join(lines)
