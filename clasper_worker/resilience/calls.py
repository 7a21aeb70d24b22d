"""Sending a request through a gate, again and again for as long as its host is in trouble."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from clasper_worker.resilience.gate import ANSWERED, GateClosedError, HostGate, Outcome, Patience

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


def verdict_on_status(status: int, wait: float | None, *, passing: bool) -> Verdict:
    """The verdict on an HTTP status that is an error.

    Args:
        status: 5xx means that the host failed, anything else that it works.
        wait: the seconds of silence that the answer asks for, if it does.
        passing: whether the same request may succeed later.
    """
    failed = status >= 500
    limited = passing and (status == _RATE_LIMITED or wait is not None)
    return Verdict(Outcome(not failed, failed, limited, wait), passing)


NO_ANSWER = Verdict(Outcome(failed=True), passing=True)
"""The verdict on a connection that could not be made, was lost, or gave no answer in time."""


async def call(
    gate: HostGate,
    patience: Patience,
    send: Callable[[], Awaitable[T]],
    judge: Callable[[Exception], Verdict],
) -> T:
    """Send a request as soon as its host's gate lets it pass.

    One that fails of a trouble which the gate knows of goes back to waiting: it is not the
    request that is at fault, so such a try counts for nothing. Any other error is the caller's to
    retry, with the same patience.

    Args:
        gate: of the request's host.
        patience: of this request and all its tries.
        send: makes one try.
        judge: reads the error that a try raised.

    Raises:
        GateClosedError: the patience is over; caused by the last try's error, if there was one.
        Exception: what the last try raised.
    """
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
    except GateClosedError as closed:
        raise closed from failure
    finally:
        del failure  # its traceback holds this frame: without this, a cycle
