"""A notification as the backend gives it to a dispatcher, and the turn that it becomes.

Which one a turn answers is its *mark*. It comes beside the request, never in it, since a worker
acknowledges what it names under the internal token: in the message's header `NOTIFICATION_HEADER`
(`broker.headers`), and to the shim in an HTTP header that it takes with that token alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from clasper_worker.engine.queue.identifiers import clean_identifier
from clasper_worker.errors import (
    InvalidRequestError,
)
from clasper_worker.text.whole_text import undamaged, whole_json
from clasper_worker.turn.request import RequestLimits, parse_send_request

DEFAULT_TITLE = "Notifications"
"""The task for notifications that name none, where no default is configured."""
MARK_HEADER = "X-Clasper-Notification"
"""The HTTP header in which the shim takes a mark, as JSON, from who has the internal token."""
INTERNAL_REFUSED = "internal_token_refused"
"""The code of the shim's answer to who has not."""
_TITLE_CHARS = 256
_KEY_CHARS = 200
_REASON_CHARS = 1000
_MALFORMED = "malformed"  # in a mark: why the notification is no turn


def _blank_is_none(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


Optional = Annotated[str | None, BeforeValidator(_blank_is_none)]


class _Delivery(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, coerce_numbers_to_str=True)

    notification_id: Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(undamaged)]
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

    @property
    def mark(self) -> Mapping[str, Any]:
        """What names the notification beside the request."""
        return {"notification_id": self.key.notification_id}


@dataclass(frozen=True, slots=True)
class Malformed:
    """A delivery that is no turn.

    Attributes:
        note: the name of the note that it was seen to.
        notification_id: as far as it has one.
        reason: why; none of the delivery's own text.
        request: a send request that, with `mark`, fails with the reason as soon as it is run,
            whatever the delivery says, and so becomes a dead letter. Its message is the delivery.
    """

    note: str
    notification_id: str
    reason: str
    request: Mapping[str, Any] = field(repr=False)

    @property
    def mark(self) -> Mapping[str, Any]:
        """What says beside the request that it is none, and why."""
        return {
            _MALFORMED: {
                "id": self.notification_id or "without an id",
                "reason": self.reason[:_REASON_CHARS],
            }
        }


def read_delivery(
    raw: Any, *, default_title: str | None, limits: RequestLimits
) -> NotificationTurn | Malformed:
    """What to do about one item of ``deliveries``.

    The turn's task is the notification's ``task_id``, else that of its title, else
    ``default_title``'s, else one made for notifications.
    """
    raw = whole_json(raw)
    if not isinstance(raw, Mapping):
        return _malformed(raw, f"notification:{_digest(raw)}", "it is no JSON object", limits)
    try:
        delivery = _Delivery.model_validate(raw)
    except ValidationError as exc:
        problems = exc.errors(include_input=False, include_url=False, include_context=False)
        told = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems)
        return _malformed(raw, f"notification:{_digest(raw)}", "; ".join(told), limits)
    request = _request(delivery, default_title or DEFAULT_TITLE)
    try:
        checked = parse_send_request(request, limits)
    except InvalidRequestError as exc:
        key = NotificationKey(delivery.user_id, delivery.notification_id)
        return _malformed(raw, key.note, str(exc), limits)
    # As the request has it: white space around it is no part of it.
    key = NotificationKey(checked.user_id, delivery.notification_id)
    return NotificationTurn(key, checked.session, request)


def notification_of(mark: object, arguments: Mapping[str, Any]) -> NotificationKey | None:
    """The notification that a turn of this mark and these arguments answers; None: it has none."""
    named = mark.get("notification_id") if isinstance(mark, Mapping) else None
    user = arguments.get("user_id")
    if not isinstance(named, str) or not named or not isinstance(user, str):
        return None
    return NotificationKey(clean_identifier(user), named)


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
        "metadata": {"busy": "enqueue"},
    }


def refuse_malformed(mark: object) -> None:
    """Fail what `read_delivery` found to be no turn.

    Raises:
        InvalidRequestError: tells what is wrong with the notification.
    """
    why = mark.get(_MALFORMED) if isinstance(mark, Mapping) else None
    if isinstance(why, Mapping):
        named, reason = (str(why.get(name))[:_REASON_CHARS] for name in ("id", "reason"))
        raise InvalidRequestError(
            f"Malformed notification {named}: {reason}", {"notification_id": named}
        )


def _malformed(raw: Any, note: str, reason: str, limits: RequestLimits) -> Malformed:
    fields = raw if isinstance(raw, Mapping) else {}
    named, user = _plain(fields.get("notification_id")), _plain(fields.get("user_id"))
    request = {
        "user_id": user or "unknown",
        "message": json.dumps(raw)[: limits.message_chars],
    }
    return Malformed(note, named, reason, request)


def _plain(value: Any) -> str:
    """An id that can be shown, else nothing."""
    text = str(value).strip() if isinstance(value, str | int) else ""
    return text if len(text) <= _KEY_CHARS and text.isprintable() else ""


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:40]


_TRY_AGAIN_SECONDS = 60.0


def left_alone_for(*, is_transient: bool) -> float:
    """Seconds until a notification whose turn failed is given another one."""
    return _TRY_AGAIN_SECONDS if is_transient else GIVEN_UP_SECONDS


GIVEN_UP_SECONDS = 86_400.0
"""How long a notification is left alone whose turn failed for good, or which is no turn."""
