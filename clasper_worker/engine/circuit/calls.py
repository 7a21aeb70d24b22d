"""Sending a request through its host's gate, and again after a passing failure.

Two kinds of failure are told apart. One of a trouble that the gate knows of, an outage or a rate
limit, goes back to waiting there and counts for nothing, until the patience is over. Any other is
tried again after a short pause, as often as the pace says, and for a while longer if the host
itself failed: a host that loses every second request opens no circuit, and a lone turn may have
spent its tries by the time that the circuit opens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import stamina

from clasper_worker.engine.circuit.gate import HostGate
from clasper_worker.engine.circuit.policy import ANSWERED, GateClosedError, Outcome, Patience
from clasper_worker.observability.metrics import count_attempt

T = TypeVar("T")

_RATE_LIMITED = 429


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the error of one try means.

    Attributes:
        outcome: what it tells of the host.
        passing: whether the same request may succeed later, unchanged.
    """

    outcome: Outcome
    passing: bool


def verdict_on_status(
    status: int, wait: float | None, *, passing: bool, alone: bool = False
) -> Verdict:
    """The verdict on an HTTP status that is an error.

    Args:
        status: 5xx means that the host failed, anything else that it works.
        wait: the seconds of silence that the answer asks for, if it does.
        passing: whether the same request may succeed later.
        alone: see `Outcome`.
    """
    failed = status >= 500
    limited = passing and (status == _RATE_LIMITED or wait is not None)
    return Verdict(Outcome(not failed, failed, limited, wait, failed and alone), passing)


def spared(verdict: Verdict) -> Verdict:
    """The verdict on a failure, where the host was seen to answer another request since."""
    return replace(verdict, outcome=replace(verdict.outcome, alone=True, others_work=True))


NO_ANSWER = Verdict(Outcome(failed=True), passing=True)
"""The verdict on a connection that could not be made, was lost, or gave no answer in time."""


WORKS = Verdict(Outcome(answered=True), passing=False)
"""The verdict on an answer that refuses this request, or is not what was expected."""

NOTHING = Verdict(Outcome(), passing=False)
"""The verdict on an error that tells nothing of the host."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a request is tried, and how fast.

    Attributes:
        attempts: in all, those aside that fail of a trouble which the gate knows of.
        first_pause: seconds before the second attempt; doubles from there, with jitter.
        longest_pause: seconds.
        persistence: the seconds for which a request is tried at the least while its host fails (no
            answer, 5xx), from the first failure since the gate last knew of trouble; only where
            outages are waited for, and not if there is one attempt only.
        to: whom, as the figures name it: ``model`` or ``backend``; empty: it is not counted.
    """

    attempts: int
    first_pause: float
    longest_pause: float
    persistence: float = 60.0
    to: str = ""


@dataclass(slots=True)
class _Tries:
    """What one request has spent of its pace."""

    pace: Pace
    persistent: bool
    made: int = 0
    since: float = 0.0

    def allow_another(self, verdict: Verdict) -> bool:
        """Count a failure that the gate knows nothing of; False if it was the last one."""
        now = asyncio.get_running_loop().time()
        if self.made == 0:
            self.since = now
        self.made += 1
        if self.made < self.pace.attempts:
            return verdict.passing
        persists = self.persistent and self.pace.attempts > 1 and verdict.outcome.failed
        return verdict.passing and persists and now - self.since < self.pace.persistence

    def forget(self) -> None:
        """Start anew: what failed was a trouble that the gate knows of."""
        self.made = 0


def patience_for(gate: HostGate | None, who: str = "") -> Patience:
    """The configured patience for one request; none without a gate.

    Args:
        gate: of the request's host.
        who: on whose behalf it is made.
    """
    return Patience(0) if gate is None else gate.patience(who)


async def call_persistently(
    gate: HostGate | None,
    patience: Patience,
    send: Callable[[], Awaitable[T]],
    judge: Callable[[Exception], Verdict],
    pace: Pace,
) -> T:
    """Send a request through its gate, and again after failures that pass.

    Args:
        gate: of the request's host; None sends every try at once.
        patience: of this request with all its tries.
        send: makes one try.
        judge: reads the error that a try raised.
        pace: of the tries.

    Raises:
        GateClosedError: the patience is over; caused by the last try's error, if there was one.
        Exception: what the last try raised.
    """
    if pace.to:
        send = _counted(send, judge, pace.to)
    tries = _Tries(pace, persistent=gate is not None and patience.for_outages)
    # The first try is made outside of the retry machinery: it nearly always succeeds.
    try:
        return await call(gate, patience, send, judge, tries.forget)
    except Exception as exc:
        if not _passes(exc, judge, tries):
            raise
        failure = exc

    counted = True  # the first failure has been

    def passes(exc: Exception) -> bool:
        nonlocal counted
        already, counted = counted, False
        return already or _passes(exc, judge, tries)

    try:
        async for attempt in stamina.retry_context(
            on=passes,
            attempts=None,
            timeout=None,
            wait_initial=pace.first_pause,
            wait_max=pace.longest_pause,
            wait_jitter=0.5,
        ):
            with attempt:
                if attempt.num == 1:
                    raise failure  # already made; the machinery only waits for it
                return await call(gate, patience, send, judge, tries.forget)
    finally:
        del failure
    raise AssertionError("the retry loop returns or raises")


def _counted(
    send: Callable[[], Awaitable[T]], judge: Callable[[Exception], Verdict], to: str
) -> Callable[[], Awaitable[T]]:
    """The same, each try counted once it has ended; not those that were not allowed to begin."""
    made = 0

    async def counted() -> T:
        nonlocal made
        outcome: str | None = None
        try:
            result = await send()
        except Exception as exc:
            outcome = _named(judge(exc))
            raise
        else:
            outcome = "answered"
            return result
        finally:
            if outcome is not None:
                made += 1
                count_attempt(to, outcome, again=made > 1)

    return counted


def _named(verdict: Verdict) -> str | None:
    """A failed try's outcome as the figures name it; None where perhaps nothing was sent."""
    outcome = verdict.outcome
    if outcome.failed:
        return "failed"
    if outcome.limited:
        return "limited"
    if outcome.answered:
        return "refused"
    return "broken" if verdict.passing else None


def _passes(exc: Exception, judge: Callable[[Exception], Verdict], tries: _Tries) -> bool:
    return not isinstance(exc, GateClosedError) and tries.allow_another(judge(exc))


async def call(
    gate: HostGate | None,
    patience: Patience,
    send: Callable[[], Awaitable[T]],
    judge: Callable[[Exception], Verdict],
    waited: Callable[[], object] = lambda: None,
) -> T:
    """Send a request as soon as its host's gate lets it pass.

    One that fails of a trouble which the gate knows of goes back to waiting, and calls ``waited``.
    Other arguments and errors as of `call_persistently`.
    """
    if gate is None:
        return await send()
    failure: Exception | None = None
    try:
        while True:
            async with gate.passage(patience) as passage:
                try:
                    result = await send()
                except Exception as exc:  # noqa: BLE001 - judged, and raised unless it is tried again
                    failure = exc
                    verdict = judge(exc)
                    passage.report(verdict.outcome)
                else:
                    passage.report(ANSWERED)
                    return result
            if not verdict.passing or not gate.is_blocked:
                raise failure
            waited()
    except GateClosedError as closed:
        raise closed from failure
    finally:
        del failure  # its traceback holds this frame: without this, a cycle
