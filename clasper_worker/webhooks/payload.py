"""What a webhook says of a turn's end, and the delivery that carries it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clasper_worker.errors import (
    ClasperError,
    InvalidRequestError,
    LaneFullError,
    SessionBusyError,
    TurnConflictError,
)
from clasper_worker.text.bounds import told_problems
from clasper_worker.turn.call import TurnCall
from clasper_worker.turn.models import TurnResult
from clasper_worker.turn.request import Webhook

Event = Literal["agent.completed", "agent.error"]

# A namespace of our own, so that our ids collide with nobody else's name-based UUIDs.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "clasper-worker:webhook")
_MAX_IDENTIFIER_CHARS = 256


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a turn did not succeed, as the contract's error object has it."""

    error: str
    code: str
    details: Mapping[str, Any] = field(default_factory=dict)
    status: Literal["failed", "cancelled"] = "failed"
    of_the_job: bool = False
    """Whether it says nothing of the turn, but of one job that asked for it."""

    @classmethod
    def of(cls, error: ClasperError) -> Self:
        """Describe one of our errors."""
        # Of those the turn has never begun: sent again, its own end is still to come.
        about_the_job = isinstance(error, (TurnConflictError, SessionBusyError, LaneFullError))
        return cls(error.message, error.code, error.details, of_the_job=about_the_job)

    @classmethod
    def of_revoked(cls, reason: str) -> Self:
        """A job that was cancelled or has expired, whatever becomes of others of its turn.

        Args:
            reason: Celery's word, ``revoked``, ``terminated`` or ``expired``.
        """
        text, code = "The turn was cancelled", "cancelled"
        if reason == "expired":
            text, code = "The turn's message expired before it was run", "expired"
        return cls(text, code, {"reason": reason}, status="cancelled", of_the_job=True)


class Delivery(BaseModel):
    """One webhook to deliver: the keyword arguments of ``clasper.webhook``.

    Attributes:
        delivery_id: the same however often it is enqueued and tried; also the Celery task's id.
        event: what happened.
        turn_id: to whom.
        user_id: whose turn; None where the request did not say.
        webhook: where it goes.
        body: the JSON to send, in ASCII: made once, so that each attempt sends the same bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    delivery_id: str = Field(pattern=r"^[!-~]{1,255}$")
    event: Event
    turn_id: str
    user_id: str | None = None
    webhook: Webhook = Field(repr=False)
    body: str = Field(repr=False, pattern=r"^[\x00-\x7f]*$")

    @classmethod
    def parse(cls, arguments: Mapping[str, Any]) -> Self:
        """Read the task's keyword arguments.

        Raises:
            InvalidRequestError: they are not a delivery's; names the fields, not their values.
        """
        try:
            return cls.model_validate(arguments)
        except ValidationError as exc:
            fields = [
                {"field": ".".join(str(part) for part in error["loc"]), "problem": error["msg"]}
                for error in exc.errors(include_input=False, include_url=False)
            ]
            text, details = told_problems(fields)
            raise InvalidRequestError(f"Invalid webhook delivery: {text}", details) from None

    def as_arguments(self) -> dict[str, Any]:
        """The task's keyword arguments, secret included: for the broker's message alone."""
        arguments = self.model_dump(mode="json", exclude={"webhook"})
        secret = self.webhook.secret
        arguments["webhook"] = {
            "url": self.webhook.url,
            "secret": None if secret is None else secret.get_secret_value(),
            "headers": dict(self.webhook.headers),
        }
        return arguments


def completed(call: TurnCall, result: TurnResult, *, at: datetime | None = None) -> Delivery | None:
    """The delivery that says that a turn succeeded, with its result; None: nobody asks for one."""
    return _delivery(call, "agent.completed", result.as_json(), at)


def failed(call: TurnCall, failure: Failure, *, at: datetime | None = None) -> Delivery | None:
    """The delivery that says that a turn has ended for good without a result; None as above."""
    outcome = {
        "status": failure.status,
        "error": failure.error,
        "code": failure.code,
        "details": dict(failure.details),
    }
    # Told apart from the turn's own failure, or a receiver would take one for the other.
    subject = (call.job_id,) if failure.of_the_job else ()
    return _delivery(call, "agent.error", outcome, at, *subject)


def _delivery(
    call: TurnCall, event: Event, outcome: Mapping[str, Any], at: datetime | None, *subject: str
) -> Delivery | None:
    if call.webhook is None:
        return None
    turn_id, user_id, task_id, turn = _named(call)
    delivery_id = str(uuid.uuid5(_NAMESPACE, json.dumps((user_id or "", turn_id, event, *subject))))
    payload = {
        "event": event,
        "delivery_id": delivery_id,
        "timestamp": _iso(at or datetime.now(UTC)),
        "task_id": task_id,
        **outcome,
        "turn_id": turn_id,  # not the result's, which may be of the turn that this one was part of
        "job_id": call.job_id,
        "user_id": user_id,
        **turn,
    }
    return Delivery(
        delivery_id=delivery_id,
        event=event,
        turn_id=turn_id,
        user_id=user_id,
        webhook=call.webhook,
        body=json.dumps(payload, separators=(",", ":")),
    )


def _named(call: TurnCall) -> tuple[str, str | None, str | None, dict[str, str | None]]:
    """Ids of the turn, user and task, and the session; what of them a bad request says safely."""
    request = call.read
    if isinstance(request, InvalidRequestError):  # there is no turn: its id is the job's
        user, task, session = (
            _identifier(call.arguments.get(name)) for name in ("user_id", "task_id", "session_key")
        )
        return call.job_id, user, task, {"session_key": session, "role": None}
    rest: dict[str, str | None] = {"session_key": request.session, "role": request.role}
    return call.identity.turn_id, request.user_id, request.task_id, rest


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _identifier(value: Any) -> str | None:
    plain = isinstance(value, str) and value.isprintable() and len(value) <= _MAX_IDENTIFIER_CHARS
    return value if plain else None
