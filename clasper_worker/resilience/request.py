"""One request at a gate: how long it waits for its host, and what it tells of it."""

from __future__ import annotations

from dataclasses import dataclass


class GateClosedError(Exception):
    """The host is in trouble, and the caller would not wait, or has waited as long as it may."""


@dataclass(slots=True)
class Patience:
    """How long one request, with all its tries, waits for its host.

    Attributes:
        seconds: in all, from when it first has to wait.
        for_outages: whether it waits while the circuit is open; else it is told so at once, and
            of a pause that is longer than ``seconds``, too.
        who: on whose behalf it is made; empty where that is not known.
    """

    seconds: float
    for_outages: bool = True
    who: str = ""
    _until: float | None = None

    def until(self, now: float) -> float:
        """When it is over; the first call starts it."""
        if self._until is None:
            self._until = now + self.seconds
        return self._until


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one request tells of its host; as made without arguments, nothing.

    Attributes:
        answered: the host gave an answer that shows it working, a refusal for instance.
        failed: no connection, no answer in time, or a 5xx.
        limited: it asked for silence (429, or ``Retry-After``).
        wait: for how many seconds; None if it named no time.
        alone: whether the failure may be its endpoint's alone, while the host works: it does not
            open the circuit, and closes none.
        others_work: whether the host was seen to answer another request since.
    """

    answered: bool = False
    failed: bool = False
    limited: bool = False
    wait: float | None = None
    alone: bool = False
    others_work: bool = False


ANSWERED = Outcome(answered=True)
