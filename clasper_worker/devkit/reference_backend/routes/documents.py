"""Documents of a task: plans, reports, standups."""

from __future__ import annotations

from sqlite3 import Connection

from fastapi import APIRouter, Depends, Request, Response

from clasper_worker.devkit.reference_backend.access import (
    AgentDep,
    BackendDep,
    Cursor,
    Limit,
    feature,
)
from clasper_worker.devkit.reference_backend.answers import Document, Page, shows
from clasper_worker.devkit.reference_backend.records import (
    DOCUMENTS,
    TASKS,
    JsonItem,
    get,
    insert,
    page,
)
from clasper_worker.devkit.reference_backend.routes.messages import TaskFilter
from clasper_worker.devkit.reference_backend.schemas import NewDocument
from clasper_worker.devkit.reference_backend.store import Transaction

router = APIRouter(prefix="/api/mission-control/documents", tags=["documents"])


@router.get("", dependencies=[Depends(feature("history"))], responses=shows(Page[Document]))
async def list_documents(
    backend: BackendDep,
    agent: AgentDep,
    task_id: TaskFilter = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """The documents of a task, or all the user's, standups included, oldest first."""

    def query(connection: Connection) -> JsonItem:
        if task_id is not None:
            get(connection, TASKS, agent.user_id, task_id)
        filters = {"user_id": agent.user_id, "task_id": task_id}
        return page(connection, DOCUMENTS, filters, limit, cursor)

    return backend.answer(query)


@router.post(
    "",
    dependencies=[Depends(feature("documents"))],
    responses=shows(Document),
)
async def create_document(
    request: Request, backend: BackendDep, agent: AgentDep, body: NewDocument
) -> Response:
    """Attach a document to a task."""

    def work(transaction: Transaction) -> JsonItem:
        get(transaction, TASKS, agent.user_id, body.task_id)
        values = body.model_dump(exclude={"idempotency_key"})
        values["doc_type"] = body.doc_type or "document"
        return insert(transaction, DOCUMENTS, agent.user_id, values)

    return await backend.change_once(request, agent.user_id, body, work)
