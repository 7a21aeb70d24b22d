"""How patient and how careful a gate is."""

from __future__ import annotations

from dataclasses import dataclass

from clasper_worker.config.groups import TurnsGroup


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """A gate's numbers; times in seconds.

    Attributes:
        failures: consecutive failures in one process that open the circuit; as many as one request
            makes tries, so that its own bad luck does not.
        failure_window: failures further apart than this are not consecutive.
        cooldown: from the opening to the first probe; doubles with each probe that fails.
        max_cooldown: the longest time between two probes.
        relapse: a circuit that opens again so soon after it closed goes on doubling.
        probe_lease: how long a probe is believed to be under way without a sign of its worker.
        pause: the wait after a 429 that names none; doubles as long as it is followed by another.
        max_pause: the longest wait that a host may ask for; a turn cannot wait out a longer one.
        max_unnamed_pause: the longest wait after a 429 that names none.
        slow_start: requests at a time that each process sends as an outage or a wait ends.
        doubling: the time in which that number doubles.
        slow_start_for: after which it is not limited any more.
        wait: how long one request waits for its host, all in all.
    """

    failures: int = 4
    failure_window: float = 60.0
    cooldown: float = 1.0
    max_cooldown: float = 10.0
    relapse: float = 60.0
    probe_lease: float = 10.0
    pause: float = 1.0
    max_pause: float = 120.0
    max_unnamed_pause: float = 30.0
    slow_start: int = 2
    doubling: float = 1.0
    slow_start_for: float = 10.0
    wait: float = 240.0

    @classmethod
    def from_settings(cls, settings: TurnsGroup) -> GatePolicy:
        """The policy as the operator configured it."""
        return cls(wait=settings.outage_wait_sec)


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
        is_reported: whether it was reported that its turn waits for an outage to end.
    """

    seconds: float
    for_outages: bool = True
    who: str = ""
    is_reported: bool = False
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
