"""Two real tools that the backend offers to agents, and their execution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clasper_worker.devkit.reference_backend.access import AgentDep, BackendDep, feature
from clasper_worker.devkit.reference_backend.answers import ToolList, ToolResult, shows
from clasper_worker.devkit.reference_backend.errors import ApiError, describe, invalid_fields
from clasper_worker.devkit.reference_backend.records import JsonItem
from clasper_worker.devkit.reference_backend.routes.tasks import change, count_by_status
from clasper_worker.devkit.reference_backend.schemas import Name, TaskStatus, ToolCall
from clasper_worker.devkit.reference_backend.store import Transaction

router = APIRouter(prefix="/api/tools", tags=["tools"], dependencies=[Depends(feature("tools"))])


class _Arguments(BaseModel):
    # A model that invents an argument should hear of it, so these are not ignored.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class _NoArguments(_Arguments):
    pass


class _Echo(_Arguments):
    message: str = Field(description="What to say back.")


class _SetTaskStatus(_Arguments):
    task_id: Name = Field(description="The id of one of the user's tasks.")
    status: TaskStatus = Field(description="The task's new status.")


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool of the backend.

    Attributes:
        name: how agents call it.
        description: what it does, for a model.
        arguments: what it takes.
        run: does it, for a tenant, and returns the result.
        effect: whether it changes anything.
    """

    name: str
    description: str
    arguments: type[_Arguments]
    run: Callable[[Transaction, str, Any], JsonItem]
    effect: Literal["read", "write"] = "read"

    def listing(self) -> JsonItem:
        """The tool as agents see it, with its parameters as JSON Schema."""
        schema = self.arguments.model_json_schema()
        schema.pop("title", None)
        schema.setdefault("properties", {})
        for parameter in schema["properties"].values():
            parameter.pop("title", None)
        return {
            "name": self.name,
            "description": self.description,
            "parameters": schema,
            "effect": self.effect,
            "idempotent": True,
        }


def _echo(transaction: Transaction, user_id: str, arguments: _Echo) -> JsonItem:
    del transaction, user_id
    return {"message": arguments.message}


def _count(transaction: Transaction, user_id: str, arguments: _NoArguments) -> JsonItem:
    del arguments
    counts = count_by_status(transaction, user_id)
    return {"counts": counts, "total": sum(counts.values())}


def _set_status(transaction: Transaction, user_id: str, arguments: _SetTaskStatus) -> JsonItem:
    task = change(transaction, user_id, arguments.task_id, {"status": arguments.status})
    return {name: task[name] for name in ("id", "title", "status")}


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("echo", "Say a message back.", _Echo, _echo),
        Tool(
            "count_tasks_by_status",
            "How many tasks the user has in each status.",
            _NoArguments,
            _count,
        ),
        Tool(
            "set_task_status",
            "Change the status of one of the user's tasks.",
            _SetTaskStatus,
            _set_status,
            "write",
        ),
    )
}

_LISTING = [tool.listing() for tool in TOOLS.values()]


@router.get("", responses=shows(ToolList))
async def list_tools(agent: AgentDep) -> Response:
    """The tools that agents may call."""
    del agent
    return JSONResponse({"tools": _LISTING})


@router.post("/{name}", responses=shows(ToolResult))
async def call_tool(
    request: Request, backend: BackendDep, agent: AgentDep, name: str, body: ToolCall
) -> Response:
    """Run a tool; the answer is what it returns."""
    tool = TOOLS.get(name)
    if tool is None:
        raise ApiError(404, f"There is no tool of this name; there are {', '.join(TOOLS)}.")
    try:
        arguments = tool.arguments.model_validate(body.arguments or {})
    except ValidationError as exc:
        fields = describe(exc.errors(include_input=False, include_url=False))
        raise invalid_fields(
            [{**item, "field": f"arguments.{item['field']}"} for item in fields]
        ) from None

    def work(transaction: Transaction) -> JsonItem:
        return tool.run(transaction, agent.user_id, arguments)

    return await backend.change_once(request, agent.user_id, body, work)
