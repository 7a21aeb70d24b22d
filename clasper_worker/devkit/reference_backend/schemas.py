"""Request bodies: what is validated, and what makes two requests the same.

Fields that are not known here are ignored (contract, "Compatibility rules"); still, a request with
such a field is not the same as one without it when both come under one idempotency key.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ModelWrapValidatorHandler,
    PrivateAttr,
    StringConstraints,
    model_validator,
)

# What `set_task_status` offers; the API takes any other text too, as backends have their own.
TaskStatus = Literal["todo", "in_progress", "blocked", "done", "cancelled"]

_ACTIVE_HOURS = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d:[0-5]\d|2[0-3]:[0-5]\d|24:00)")


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("must be an IANA time zone such as Europe/Berlin") from None
    return name


def _active_hours(text: str) -> str:
    if not _ACTIVE_HOURS.fullmatch(text):
        raise ValueError("must be HH:MM-HH:MM, such as 08:00-22:00")
    return text


Name = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_not_blank)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(_not_blank)]
Title = Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(_not_blank)]
Content = Annotated[
    str, StringConstraints(min_length=1, max_length=1_000_000), AfterValidator(_not_blank)
]
Role = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Timezone = Annotated[str, AfterValidator(_timezone)]
ActiveHours = Annotated[str, AfterValidator(_active_hours)]
JsonObject = dict[str, JsonValue]


class RequestBody(BaseModel):
    """A JSON object that was sent to the backend."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    _canonical: bytes = PrivateAttr(default=b"")

    @model_validator(mode="wrap")
    @classmethod
    def _keep_canonical_form(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        body = handler(data)
        try:
            # Python's parser takes NaN, lone surrogates and endless nesting; JSON (RFC 8259) and
            # SQLite do not.
            text = json.dumps(data, sort_keys=True, ensure_ascii=False, allow_nan=False)
            body._canonical = text.encode()  # noqa: SLF001 - its own, in a class method
        except (ValueError, TypeError, RecursionError):
            raise ValueError(
                "must be JSON that can be sent on: no NaN or Infinity, no lone surrogates, no "
                "extreme nesting"
            ) from None
        return body

    def fingerprint(self, endpoint: str) -> bytes:
        """A digest of this request to `endpoint` ("POST /path"), equal only for the same one.

        The order of a JSON object's fields and white space make no difference.
        """
        return hashlib.sha256(endpoint.encode() + b"\n" + self._canonical).digest()


class KeyedBody(RequestBody):
    """A request that may be repeated under its idempotency key."""

    idempotency_key: Key | None = Field(
        default=None,
        description="Scoped to the tenant. The same request under the same key gets the original "
        "response; a different one is a 409.",
    )


class NewTask(KeyedBody):
    """`POST /api/mission-control/tasks`."""

    title: Title
    description: Content | None = None
    status: Name | None = Field(default=None, description="Default: in_progress.")
    metadata: JsonObject | None = Field(
        default=None, description='Default: {"type": "agent_thread"}.'
    )


class TaskChange(RequestBody):
    """`PATCH /api/mission-control/tasks/{id}`: what is left out stays as it is."""

    title: Title | None = None
    description: Content | None = None
    status: Name | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.title is None and self.description is None and self.status is None:
            raise ValueError("must have at least one of title, description, status")
        return self


class NewMessage(KeyedBody):
    """`POST /api/mission-control/messages`."""

    task_id: Name
    content: Content
    actor_type: Literal["agent", "user", "system"] | None = Field(
        default=None, description="Default: agent."
    )
    actor_id: Name | None = None
    agent_role: Role | None = Field(default=None, description="Default: the agent token's.")
    attachments: list[JsonValue] | None = None


class NewDocument(KeyedBody):
    """`POST /api/mission-control/documents`."""

    task_id: Name
    title: Title
    content: Content
    doc_type: Name | None = Field(default=None, description="Default: document.")


class NewNotification(KeyedBody):
    """`POST /api/mission-control/notifications`."""

    user_id: Name | None = Field(
        default=None, description="Required with the internal token; else the agent's own user."
    )
    content: Content
    session_key: Name | None = Field(
        default=None, description="Default: user:{user_id}:{agent_role}."
    )
    agent_role: Role | None = Field(
        default=None, description="Whom the default session key is for; default: default."
    )
    task_id: Name | None = None
    task_title: Title | None = None


class UndeliveredQuery(RequestBody):
    """The body of `POST .../dispatch/undelivered`, where the limits may stand, too."""

    limit_users: int | None = Field(default=None, ge=1, le=1000)
    limit_notifications: int | None = Field(default=None, ge=1, le=1000)


class HeartbeatBody(KeyedBody):
    """`POST /api/mission-control/heartbeat`."""

    user_id: Name


class StandupBody(KeyedBody):
    """`POST /api/mission-control/standup`."""

    user_id: Name
    timezone: Timezone | None = Field(default=None, description="Default: UTC.")


class NewToolRequest(KeyedBody):
    """`POST /api/mission-control/tool-requests`."""

    tool: Name
    arguments: JsonObject | None = Field(default=None, description="Default: {}.")
    arguments_hash: Name | None = None
    wait_id: Name | None = Field(default=None, description="What waits for the decision.")
    turn_id: Name | None = None
    task_id: Name | None = None
    agent_role: Role | None = Field(default=None, description="Default: the agent token's.")
    session_key: Name | None = None
    reason: Content | None = None
    expires_at: Name | None = None


class Decision(RequestBody):
    """`PATCH /api/mission-control/tool-requests/{id}`."""

    status: Literal["approved", "rejected"]
    arguments: JsonObject | None = Field(
        default=None, description="What to call it with instead; the request then shows these."
    )
    by: Name | None = None
    reason: Content | None = None


class ToolCall(KeyedBody):
    """`POST /api/tools/{name}`."""

    arguments: JsonObject | None = Field(default=None, description="Default: {}.")


class AgentEntry(RequestBody):
    """`POST /api/mission-control/agents`."""

    user_id: Name
    agent_role: Role
    timezone: Timezone | None = None
    active_hours: ActiveHours | None = None
