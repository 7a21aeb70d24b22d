"""Tasks: the threads of work that everything else belongs to."""

from __future__ import annotations

import sqlite3

from fastapi import APIRouter, Depends, Request, Response

from clasper_worker.devkit.reference_backend.access import (
    AgentDep,
    BackendDep,
    Cursor,
    Limit,
    feature,
)
from clasper_worker.devkit.reference_backend.answers import Page, Task, shows
from clasper_worker.devkit.reference_backend.records import (
    TASKS,
    JsonItem,
    insert,
    now,
    page,
    update,
)
from clasper_worker.devkit.reference_backend.schemas import NewTask, TaskChange
from clasper_worker.devkit.reference_backend.store import Transaction

router = APIRouter(
    prefix="/api/mission-control/tasks", tags=["tasks"], dependencies=[Depends(feature("tasks"))]
)

# A task in any other status is open: backends have statuses of their own.
CLOSED_STATUSES = frozenset({"done", "completed", "cancelled", "closed", "archived"})


@router.get("", responses=shows(Page[Task]))
async def list_tasks(
    backend: BackendDep, agent: AgentDep, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    """The user's tasks, oldest first; follow `next_cursor` for more."""
    return backend.answer(
        lambda connection: page(connection, TASKS, {"user_id": agent.user_id}, limit, cursor)
    )


@router.post("", responses=shows(Task))
async def create_task(
    request: Request, backend: BackendDep, agent: AgentDep, body: NewTask
) -> Response:
    """Create a task."""

    def work(transaction: Transaction) -> JsonItem:
        moment = now()
        return insert(
            transaction,
            TASKS,
            agent.user_id,
            {
                "title": body.title,
                "description": body.description,
                "status": body.status or "in_progress",
                "metadata": {"type": "agent_thread"} if body.metadata is None else body.metadata,
                "created_at": moment,
                "updated_at": moment,
            },
        )

    return await backend.change_once(request, agent.user_id, body, work)


@router.patch("/{task_id}", responses=shows(Task))
async def change_task(
    backend: BackendDep, agent: AgentDep, task_id: str, body: TaskChange
) -> Response:
    """Change a task's status, title or description (ours, beyond the contract)."""
    changes = body.model_dump(include={"title", "description", "status"}, exclude_none=True)
    return await backend.change(
        lambda transaction: change(transaction, agent.user_id, task_id, changes)
    )


def change(
    transaction: Transaction, user_id: str, task_id: str, changes: dict[str, str]
) -> JsonItem:
    """Change columns of one task.

    Raises:
        ApiError: 404; this tenant has no such task.
    """
    return update(transaction, TASKS, user_id, task_id, {**changes, "updated_at": now()})


def count_by_status(source: sqlite3.Connection | Transaction, user_id: str) -> dict[str, int]:
    """How many tasks a tenant has in each status, by status in alphabetical order."""
    rows = source.execute(
        "SELECT status, count(*) FROM tasks WHERE user_id = ? GROUP BY status ORDER BY status",
        (user_id,),
    )
    return dict(rows.fetchall())


def titles(
    source: sqlite3.Connection | Transaction, user_id: str, status: str, limit: int
) -> list[str]:
    """The titles of a tenant's first tasks in one status, oldest first."""
    rows = source.execute(
        "SELECT title FROM tasks WHERE user_id = ? AND status = ? ORDER BY seq LIMIT ?",
        (user_id, status, limit),
    )
    return [title for (title,) in rows]
