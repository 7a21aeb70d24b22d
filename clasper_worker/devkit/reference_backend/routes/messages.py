"""Messages of a task: the conversation, which the backend keeps."""

from __future__ import annotations

from sqlite3 import Connection
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from clasper_worker.devkit.reference_backend.access import (
    AgentDep,
    BackendDep,
    Cursor,
    Limit,
    feature,
)
from clasper_worker.devkit.reference_backend.answers import Message, Page, shows
from clasper_worker.devkit.reference_backend.records import (
    MESSAGES,
    TASKS,
    JsonItem,
    get,
    insert,
    page,
)
from clasper_worker.devkit.reference_backend.schemas import NewMessage
from clasper_worker.devkit.reference_backend.store import Transaction

router = APIRouter(prefix="/api/mission-control/messages", tags=["messages"])

TaskFilter = Annotated[str | None, Query(description="Only those of this task.")]


@router.get("", dependencies=[Depends(feature("history"))], responses=shows(Page[Message]))
async def list_messages(
    backend: BackendDep,
    agent: AgentDep,
    task_id: TaskFilter = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """The messages of a task, or of all the user's tasks, oldest first."""

    def query(connection: Connection) -> JsonItem:
        if task_id is not None:
            get(connection, TASKS, agent.user_id, task_id)
        filters = {"user_id": agent.user_id, "task_id": task_id}
        return page(connection, MESSAGES, filters, limit, cursor)

    return backend.answer(query)


@router.post("", dependencies=[Depends(feature("messages"))], responses=shows(Message))
async def post_message(
    request: Request, backend: BackendDep, agent: AgentDep, body: NewMessage
) -> Response:
    """Post a message in a task's thread; with `--register-agents`, make its agent known."""

    def work(transaction: Transaction) -> JsonItem:
        get(transaction, TASKS, agent.user_id, body.task_id)
        if backend.config.registers_agents:
            transaction.execute(
                "INSERT OR IGNORE INTO agents (user_id, agent_role) VALUES (?, ?)",
                (agent.user_id, agent.agent_role),
            )
        values = body.model_dump(exclude={"idempotency_key"})
        values["actor_type"] = body.actor_type or "agent"
        values["agent_role"] = body.agent_role or agent.agent_role
        return insert(transaction, MESSAGES, agent.user_id, values)

    return await backend.change_once(request, agent.user_id, body, work)
