"""Approvals of tool calls: an agent asks, somebody decides.

A decision is taken with the internal token (the product's own user interface, acting for a
person), or, as the contract has it, with an agent token of the same tenant.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from clasper_worker.devkit.reference_backend.access import (
    EITHER_TOKEN,
    AgentDep,
    BackendDep,
    Cursor,
    EitherDep,
    Limit,
    feature,
)
from clasper_worker.devkit.reference_backend.answers import Page, ToolRequest, shows
from clasper_worker.devkit.reference_backend.errors import ApiError
from clasper_worker.devkit.reference_backend.records import (
    TASKS,
    TOOL_REQUESTS,
    JsonItem,
    get,
    insert,
    now,
    page,
    update,
)
from clasper_worker.devkit.reference_backend.schemas import Decision, NewToolRequest
from clasper_worker.devkit.reference_backend.store import Transaction

router = APIRouter(
    prefix="/api/mission-control/tool-requests",
    tags=["tool requests"],
    dependencies=[Depends(feature("tool_requests"))],
)

_Status = Annotated[
    Literal["pending", "approved", "rejected"] | None, Query(description="Only those.")
]

_WaitId = Annotated[str | None, Query(description="Only the one that this waits for.")]


@router.post("", responses=shows(ToolRequest))
async def ask(
    request: Request, backend: BackendDep, agent: AgentDep, body: NewToolRequest
) -> Response:
    """Ask whether a tool may be called; the answer is `pending` until somebody decides."""

    def work(transaction: Transaction) -> JsonItem:
        if body.task_id is not None:
            get(transaction, TASKS, agent.user_id, body.task_id)
        values = body.model_dump(exclude={"idempotency_key"})
        values |= {
            "arguments": body.arguments or {},
            "agent_role": body.agent_role or agent.agent_role,
            "status": "pending",
        }
        return insert(transaction, TOOL_REQUESTS, agent.user_id, values)

    return await backend.change_once(request, agent.user_id, body, work)


@router.get("", responses=shows(Page[ToolRequest]))
async def list_requests(
    backend: BackendDep,
    agent: AgentDep,
    status: _Status = None,
    wait_id: _WaitId = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """The user's tool requests, oldest first."""
    filters = {"user_id": agent.user_id, "status": status, "wait_id": wait_id}
    return backend.answer(
        lambda connection: page(connection, TOOL_REQUESTS, filters, limit, cursor)
    )


@router.get("/{request_id}", responses=shows(ToolRequest))
async def read_request(backend: BackendDep, agent: AgentDep, request_id: str) -> Response:
    """One tool request."""
    return backend.answer(
        lambda connection: get(connection, TOOL_REQUESTS, agent.user_id, request_id)
    )


@router.patch("/{request_id}", openapi_extra=EITHER_TOKEN, responses=shows(ToolRequest))
async def decide(
    backend: BackendDep, caller: EitherDep, request_id: str, body: Decision
) -> Response:
    """Approve or reject (internal token, or an agent token of the same tenant).

    The same decision again changes nothing; the opposite one is a 409 `already_decided`.
    """

    def work(transaction: Transaction) -> JsonItem:
        user_id = caller.user_id if caller else _owner(transaction, request_id)
        item = get(transaction, TOOL_REQUESTS, user_id, request_id)
        if item["status"] == body.status:
            return item
        if item["status"] != "pending":
            raise ApiError(
                409,
                f"This tool request was {item['status']} before; a decision is final.",
                code="already_decided",
                details={"status": item["status"]},
            )
        decision: JsonItem = {
            "status": body.status,
            "decided_at": now(),
            "by": body.by or (f"agent:{caller.agent_role}" if caller else "internal"),
            "decision_reason": body.reason,
        }
        if body.arguments is not None:
            decision["arguments"] = body.arguments
        return update(transaction, TOOL_REQUESTS, user_id, request_id, decision)

    return await backend.change(work)


def _owner(transaction: Transaction, request_id: str) -> str:
    row = transaction.execute(
        "SELECT user_id FROM tool_requests WHERE id = ?", (request_id,)
    ).fetchone()
    if row is None:
        raise ApiError(404, "There is no tool request with this id.")
    owner: str = row["user_id"]
    return owner
