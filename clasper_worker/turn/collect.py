"""Turns that waited for their session and are run with another as one (busy policy ``collect``)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from celery import states
from pydantic import Field

from clasper_worker.engine.redis.faults import redis_fault, typed_error
from clasper_worker.errors import (
    ClasperError,
    InvalidRequestError,
    TurnConflictError,
    TurnTimeoutError,
)
from clasper_worker.turn.call import TurnCall
from clasper_worker.turn.journal import TurnJournal, conflict
from clasper_worker.turn.journal_store import TurnLedger, ledger_key, request_digest
from clasper_worker.turn.models import TurnIdentity, TurnResult
from clasper_worker.turn.request import SendRequest

Part = Callable[[tuple[str, ...]], Awaitable[None]]


class JobEnds(Protocol):
    """Where a job's end goes, once it is stored (`completion.completion`)."""

    async def succeeded(self, call: TurnCall, result: TurnResult) -> None:
        """The job has a result."""

    async def failed(self, call: TurnCall, error: ClasperError) -> None:
        """The job has failed for good."""


class JoinedRequest(SendRequest):
    """A send request with the messages that came after it.

    The digest by which a turn knows its request leaves them out: sent again under its key, the
    first request is the same turn, whatever was collected with it.

    Attributes:
        others: the later messages, in order of arrival.
    """

    others: tuple[str, ...] = Field(default=(), exclude=True, repr=False)

    @property
    def instruction(self) -> str:
        """What the model is told last: all the messages, in order of arrival."""
        return "\n\n".join((super().instruction, *self.others))


@dataclass(frozen=True, slots=True)
class _Member:
    """A job that is run with another's turn.

    Attributes:
        call: what it asks for.
        journal: of the turn that its own idempotency key names; None where it has none, or one
            that another of the group has.
        text: what the model is told of it; None where another of the group says it.
    """

    call: TurnCall
    journal: TurnJournal | None
    text: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Gathering:
    """What the others are measured by.

    Attributes:
        request: the first one's.
        decided: who was found to be part of the turn by an earlier run; None before.
        turns: the turns that the group has by now, with digests of their requests.
        ledger: of all turns.
    """

    request: SendRequest
    decided: tuple[str, ...] | None
    turns: dict[str, str]
    ledger: TurnLedger


class CollectedTurns:
    """The other jobs of a turn: each gets the turn's result, or its failure, as its own.

    Their keys keep their promise all the same. One that asks for a turn which is over gets what
    that gave, one that asks for the same turn twice is told to the model once, and each key is
    noted to have had the common result. A job that cannot be part of the turn, since that is over,
    has begun without it or is of another task, waits behind it again.

    Args:
        collected: the jobs, as `TurnDelivery.collected` has them, in order of arrival.
        backend: Celery's result backend.
        part: has jobs of these ids wait for a turn of their own.
        ends: where each job's end goes.
    """

    def __init__(
        self, collected: Sequence[Mapping[str, Any]], backend: Any, *, part: Part, ends: JobEnds
    ) -> None:
        self._jobs = {
            job["job_id"]: TurnCall(job["job_id"], job["request"], job.get("notification"))
            for job in collected
        }
        self._members: list[_Member] = []
        self._backend = backend
        self._part = part
        self._ends = ends

    async def stand_apart(self) -> None:
        """Have all of them wait for turns of their own: what comes is the first one's alone.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        if self._jobs:
            await self._part(tuple(self._jobs))
            self._jobs.clear()
            self._members.clear()

    async def join(self, first: TurnCall, ledger: TurnLedger) -> SendRequest:
        """The first one's request with the others' messages; one whose own is invalid fails.

        Raises:
            InvalidRequestError: the first one's is.
            StateUnavailableError: Redis does not answer.
        """
        request, turn = first.request, first.identity
        if not self._jobs:
            return request
        try:
            journal = await TurnJournal.open(
                ledger, ledger_key(request, turn), request_digest(request)
            )
        except TurnConflictError:  # which the turn is going to fail of
            await self.stand_apart()
            return request
        decided = journal.joined
        if decided is None and journal.has_begun:
            decided = ()
        turns = {turn.turn_id: request_digest(request)}
        gathering = _Gathering(request, decided, turns, ledger)
        apart: list[str] = []
        for job_id, call in self._jobs.items():
            # Once one waits, all after it wait as well, in their order.
            waits = apart if decided is None else job_id not in decided
            if waits or not await self._take(call, gathering):
                apart.append(job_id)
        await self._decide(journal, decided, apart)
        self._jobs.clear()
        others = tuple(one.text for one in self._members if one.text is not None)
        return cast(
            "SendRequest",
            JoinedRequest.model_construct(request.model_fields_set, **dict(request), others=others),
        )

    async def succeed(self, result: TurnResult) -> None:
        """Store the turn's result as each job's.

        Raises:
            StateUnavailableError: Redis does not answer; all are to be told again.
        """
        for member in self._members:
            if member.journal is not None:
                await member.journal.settle(result)
            await self._end(member.call, result)

    async def fail(self, error: ClasperError) -> None:
        """Store the turn's failure as each job's; what comes before they joined is not theirs.

        Raises:
            StateUnavailableError: Redis does not answer; all are to be told again.
        """
        await self.stand_apart()
        is_posted = isinstance(error, TurnTimeoutError) and bool(error.details.get("posted"))
        for member in self._members:
            if is_posted and member.journal is not None:
                await member.journal.settle(None)  # that it ran out of time is said to all of them
            await self._end(member.call, error)

    async def _take(self, call: TurnCall, gathering: _Gathering) -> bool:
        """Make a job part of the turn, or end it if it is over; False if it is to wait."""
        is_new, turns = gathering.decided is None, gathering.turns
        try:
            other, asked = call.request, call.identity
            _refuse_another_session(other, gathering.request)
            if is_new and _thread(other) != _thread(gathering.request):
                return False
            own = await _journal(other, asked, gathering)
        except (InvalidRequestError, TurnConflictError) as exc:
            await self._end(call, exc)
            return True
        if own is not None and own.result is not None:
            await self._end(call, own.result)
            return True
        if own is not None and own.has_begun and is_new:
            return False
        text = other.message if asked.turn_id not in turns else None
        turns.setdefault(asked.turn_id, request_digest(other))
        self._members.append(_Member(call, own, text))
        return True

    async def _decide(
        self, journal: TurnJournal, decided: tuple[str, ...] | None, apart: list[str]
    ) -> None:
        """Record who is part of the turn, and let the others wait for turns of their own."""
        if decided is None:
            decided = await journal.record_joined([one.call.job_id for one in self._members])
            late = [one.call.job_id for one in self._members if one.call.job_id not in decided]
            self._members = [one for one in self._members if one.call.job_id in decided]
            apart = [*late, *apart]
        if apart:
            await self._part(tuple(apart))

    async def _end(self, call: TurnCall, end: TurnResult | ClasperError) -> None:
        """Store a job's end, and then report it to those who wait for it."""
        state = states.SUCCESS if isinstance(end, TurnResult) else states.FAILURE
        try:
            if await asyncio.to_thread(self._backend.get_state, call.job_id) == states.REVOKED:
                return  # cancelled by itself meanwhile, which is reported
            await asyncio.to_thread(self._backend.store_result, call.job_id, end, state)
        except Exception as exc:
            if redis_fault(exc) is None:
                raise
            raise typed_error(exc, "CELERY_RESULT_BACKEND") from exc
        if isinstance(end, TurnResult):
            await self._ends.succeeded(call, end)
        else:
            await self._ends.failed(call, end)


async def _journal(
    other: SendRequest, asked: TurnIdentity, gathering: _Gathering
) -> TurnJournal | None:
    """The journal of the turn that a job's key, or its id, names, unless the group has that."""
    digest = request_digest(other)
    known = gathering.turns.get(asked.turn_id)
    if known is not None and known != digest:
        raise conflict()
    if known is not None:
        return None
    return await TurnJournal.open(gathering.ledger, ledger_key(other, asked), digest)


def _refuse_another_session(other: SendRequest, first: SendRequest) -> None:
    """A message whose header said that it is of this session may be another's after all."""
    if (other.user_id, other.session) != (first.user_id, first.session):
        raise InvalidRequestError(
            "The message's header clasper_route names another session than its arguments: send the"
            " same, or no such header"
        )


def _thread(request: SendRequest) -> tuple[str | None, str | None]:
    """The task whose conversation a request belongs to."""
    return request.task_id, request.task_title
