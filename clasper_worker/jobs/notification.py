"""A notification as the backend gives it to a dispatcher, and the turn that it becomes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from clasper_worker.errors import InvalidRequestError
from clasper_worker.turn.request import RequestLimits, parse_send_request

DEFAULT_TITLE = "Notifications"
"""The task for notifications that name none, where no default is configured."""

_TITLE_CHARS = 256
_KEY_CHARS = 200

_MARK = "dispatch"  # in a request's metadata: which notification the turn answers


def _blank_is_none(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


Optional = Annotated[str | None, BeforeValidator(_blank_is_none)]


class _Delivery(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, coerce_numbers_to_str=True)

    notification_id: Annotated[str, Field(min_length=1, max_length=1024)]
    user_id: Annotated[str, Field(min_length=1)]
    content: Annotated[str, Field(min_length=1, repr=False)]
    session_key: Optional = None
    agent_role: Optional = None
    task_id: Optional = None
    task_title: Annotated[Optional, Field(repr=False)] = None
    title: Annotated[Optional, Field(repr=False)] = None


@dataclass(frozen=True, slots=True)
class NotificationKey:
    """Which notification: its id, and whose it is."""

    user_id: str
    notification_id: str

    @property
    def note(self) -> str:
        """The name of the note that tells that it is being seen to."""
        return f"notification:{_digest([self.user_id, self.notification_id])}"


@dataclass(frozen=True, slots=True)
class NotificationTurn:
    """The turn that a notification asks for.

    Attributes:
        key: which notification.
        session: the session that its turn belongs to.
        request: a send request. Sent again it is the same, so that it is the same turn.
    """

    key: NotificationKey
    session: str
    request: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Malformed:
    """A delivery that is no turn: its request fails when it is run, and says why.

    Attributes:
        note: the name of the note that it was seen to.
        request: what there is of a send request.
    """

    note: str
    request: Mapping[str, Any]


def read_delivery(
    raw: Any, *, default_title: str | None, limits: RequestLimits
) -> NotificationTurn | Malformed:
    """What to do about one item of ``deliveries``.

    The turn's task is the notification's ``task_id``, else that of its title, else
    ``default_title``'s, else one made for notifications.
    """
    try:
        delivery = _Delivery.model_validate(raw)
    except ValidationError:
        return _malformed(raw)
    request = _request(delivery, default_title or DEFAULT_TITLE)
    try:
        checked = parse_send_request(request, limits)
    except InvalidRequestError:
        return Malformed(NotificationKey(delivery.user_id, delivery.notification_id).note, request)
    # As the request has it: white space around it is no part of it.
    key = NotificationKey(checked.user_id, delivery.notification_id)
    return NotificationTurn(key, checked.session, request)


def notification_of(arguments: Mapping[str, Any]) -> NotificationKey | None:
    """The notification that a turn of these arguments answers; None where it answers none."""
    metadata = arguments.get("metadata")
    mark = metadata.get(_MARK) if isinstance(metadata, Mapping) else None
    named = mark.get("notification_id") if isinstance(mark, Mapping) else None
    user = arguments.get("user_id")
    if not isinstance(named, str) or not named or not isinstance(user, str):
        return None
    return NotificationKey(user.strip(), named)


def _request(delivery: _Delivery, default_title: str) -> dict[str, Any]:
    title = delivery.task_title or delivery.title or default_title
    optional = {
        "session_key": delivery.session_key,
        "agent_role": None if delivery.session_key else delivery.agent_role,
        "task_id": delivery.task_id,
        "task_title": None if delivery.task_id else title.strip()[:_TITLE_CHARS],
    }
    named = delivery.notification_id
    return {
        "user_id": delivery.user_id,
        "message": delivery.content,
        **{name: value for name, value in optional.items() if value is not None},
        "idempotency_key": "notification:"
        + (named if len(named) <= _KEY_CHARS and named.isprintable() else _digest([named])),
        "metadata": {"busy": "enqueue", _MARK: {"notification_id": named}},
    }


def _malformed(raw: Any) -> Malformed:
    fields = raw if isinstance(raw, Mapping) else {"content": raw}
    request = {
        "user_id": fields.get("user_id"),
        "session_key": fields.get("session_key"),
        "message": fields.get("content"),
        "metadata": {"malformed_notification": str(fields.get("notification_id"))[:_KEY_CHARS]},
    }
    return Malformed(f"notification:{_digest(raw)}", request)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:40]
