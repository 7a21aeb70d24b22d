"""The bodies of answers, for ``/docs`` and ``/openapi.json``. What is not set is left out of them.

Endpoints answer with rows as they are, unchecked, to stay quick; the tests hold them to these.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, JsonValue, RootModel

ItemT = TypeVar("ItemT")


class Capabilities(BaseModel):
    """What the backend can do."""

    contract_version: str
    features: dict[str, bool]
    features_list: list[str]


class Health(BaseModel):
    """That the backend is alive."""

    status: Literal["ok"]
    contract_version: str


class Page(BaseModel, Generic[ItemT]):
    """Part of a list, oldest first; there is more while there is a `next_cursor`."""

    items: list[ItemT]
    next_cursor: str | None = None


class Task(BaseModel):
    """A thread of work."""

    id: str
    title: str
    status: str
    description: str | None = None
    metadata: dict[str, JsonValue]
    created_at: str
    updated_at: str


class Message(BaseModel):
    """One message of a task."""

    id: str
    task_id: str
    content: str
    actor_type: str
    actor_id: str | None = None
    agent_role: str
    attachments: list[JsonValue] | None = None
    created_at: str


class Document(BaseModel):
    """A document, of a task or (a standup) of none."""

    id: str
    title: str
    doc_type: str
    task_id: str | None = None
    content: str
    created_at: str


class Notification(BaseModel):
    """Something that a user's agent is to hear of."""

    id: str
    content: str
    session_key: str
    agent_role: str | None = None
    task_id: str | None = None
    task_title: str | None = None
    created_at: str
    delivered_at: str | None = None


class Delivery(BaseModel):
    """An undelivered notification, as a dispatcher gets it."""

    notification_id: str
    user_id: str
    session_key: str
    content: str
    agent_role: str | None = None
    task_id: str | None = None
    task_title: str | None = None
    created_at: str


class Deliveries(BaseModel):
    """What is to be delivered."""

    deliveries: list[Delivery]


class Delivered(BaseModel):
    """An acknowledged delivery."""

    notification_id: str
    user_id: str
    status: Literal["delivered"]
    delivered_at: str
    already_delivered: bool


class RegisteredAgent(BaseModel):
    """An agent that gets heartbeats and standups."""

    user_id: str
    agent_role: str
    timezone: str | None = None
    active_hours: str | None = None


class Heartbeat(BaseModel):
    """A recorded heartbeat, and what waits for the agent."""

    status: Literal["ok"]
    user_id: str
    agent_role: str
    recorded_at: str
    heartbeats: int
    open_tasks: int
    tasks_by_status: dict[str, int]
    undelivered_notifications: list[Delivery]


class Standup(BaseModel):
    """A day's standup."""

    status: Literal["ok"]
    user_id: str
    day: str
    timezone: str
    summary: str
    document_id: str
    created: bool


class ToolRequest(BaseModel):
    """A tool call that waits for a decision, or has one."""

    id: str
    tool: str
    arguments: dict[str, JsonValue]
    arguments_hash: str | None = None
    status: Literal["pending", "approved", "rejected"]
    wait_id: str | None = None
    turn_id: str | None = None
    task_id: str | None = None
    agent_role: str
    session_key: str | None = None
    reason: str | None = None
    expires_at: str | None = None
    created_at: str
    decided_at: str | None = None
    by: str | None = None
    decision_reason: str | None = None


class ToolListing(BaseModel):
    """A tool of the backend; `parameters` is JSON Schema."""

    name: str
    description: str
    parameters: dict[str, JsonValue]
    effect: Literal["read", "write", "irreversible"]
    idempotent: bool


class ToolList(BaseModel):
    """The tools that agents may call."""

    tools: list[ToolListing]


class ToolResult(RootModel[dict[str, JsonValue]]):
    """What a tool returned: any JSON object."""


def shows(model: Any, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """For an endpoint's ``responses``: that it answers `status` with a body like `model`."""
    return {status: {"model": model}}
