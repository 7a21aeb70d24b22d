"""What a webhook says of a turn's end, and the delivery that carries it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clasper_worker.engine.queue.identity import turn_id_for
from clasper_worker.engine.queue.wellformed import measure
from clasper_worker.errors import (
    ClasperError,
    InvalidRequestError,
    LaneFullError,
    SessionBusyError,
    TurnConflictError,
)
from clasper_worker.text.bounds import told_problems
from clasper_worker.turn.models import TurnResult
from clasper_worker.turn.request import RequestLimits, Webhook, parse_send_request

Event = Literal["agent.completed", "agent.error"]

# A namespace of our own, so that our ids collide with nobody else's name-based UUIDs.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "clasper-worker:webhook")
_MAX_IDENTIFIER_CHARS = 256


@dataclass(frozen=True, slots=True)
class EndedTurn:
    """The turn that a webhook is about, as its request named it.

    Where the request could not be read there is no turn: ``turn_id`` is then the job's.
    """

    webhook: Webhook = field(repr=False)
    turn_id: str
    job_id: str
    user_id: str | None = None
    session_key: str | None = None
    role: str | None = None
    task_id: str | None = None


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


def ended_turn(
    arguments: Mapping[str, Any], job_id: str, limits: RequestLimits
) -> EndedTurn | None:
    """The turn that a job's arguments ask for, if it is to be reported by a webhook.

    A request that cannot be run may still have a webhook that can: its sender wants to know.
    """
    webhook = arguments.get("webhook")
    if webhook is None:
        return None
    try:
        request = parse_send_request(arguments, limits)
    except InvalidRequestError:
        return _unreadable(arguments, webhook, job_id)
    if request.webhook is None:
        return None
    return EndedTurn(
        webhook=request.webhook,
        turn_id=turn_id_for(request.user_id, request.idempotency_key, job_id),
        job_id=job_id,
        user_id=request.user_id,
        session_key=request.session,
        role=request.role,
        task_id=request.task_id,
    )


def completed(turn: EndedTurn, result: TurnResult, *, at: datetime | None = None) -> Delivery:
    """The delivery that says that a turn succeeded, with its result."""
    return _delivery(turn, "agent.completed", {**result.as_json(), "task_id": result.task_id}, at)


def failed(turn: EndedTurn, failure: Failure, *, at: datetime | None = None) -> Delivery:
    """The delivery that says that a turn has ended without a result, for good."""
    outcome = {
        "status": failure.status,
        "task_id": turn.task_id,
        "error": failure.error,
        "code": failure.code,
        "details": dict(failure.details),
    }
    # Told apart from the turn's own failure, or a receiver would take one for the other.
    subject = (turn.job_id,) if failure.of_the_job else ()
    return _delivery(turn, "agent.error", outcome, at, *subject)


def _delivery(
    turn: EndedTurn, event: Event, outcome: Mapping[str, Any], at: datetime | None, *subject: str
) -> Delivery:
    parts = (turn.user_id or "", turn.turn_id, event, *subject)
    delivery_id = str(uuid.uuid5(_NAMESPACE, json.dumps(parts)))
    payload = {
        "event": event,
        "delivery_id": delivery_id,
        "timestamp": _iso(at or datetime.now(UTC)),
        **outcome,
        "turn_id": turn.turn_id,
        "job_id": turn.job_id,
        "user_id": turn.user_id,
        "session_key": turn.session_key,
        "role": turn.role,
    }
    return Delivery(
        delivery_id=delivery_id,
        event=event,
        turn_id=turn.turn_id,
        user_id=turn.user_id,
        webhook=turn.webhook,
        body=json.dumps(payload, separators=(",", ":")),
    )


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _unreadable(arguments: Mapping[str, Any], webhook: Any, job_id: str) -> EndedTurn | None:
    _, problems = measure(webhook)
    if problems:
        return None
    try:
        checked = Webhook.model_validate(webhook)
    except ValidationError:
        return None
    return EndedTurn(
        webhook=checked,
        turn_id=job_id,
        job_id=job_id,
        user_id=_identifier(arguments.get("user_id")),
        session_key=_identifier(arguments.get("session_key")),
        task_id=_identifier(arguments.get("task_id")),
    )


def _identifier(value: Any) -> str | None:
    plain = isinstance(value, str) and value.isprintable() and len(value) <= _MAX_IDENTIFIER_CHARS
    return value if plain else None
