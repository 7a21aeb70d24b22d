"""What is known of one host's trouble, and how it changes: pure functions over frozen data.

::

    closed ── failures in a row ──► open ── cool-down over, one probe claimed ──► half-open
      ▲                              ▲                                            │      │
      │                              └────── the probe fails: longer cool-down ───┘      │
      └── slow start ◄──────────────────────── the probe is answered ────────────────────┘

Beside it stands the wait that a 429 asked for. Times are seconds of one clock that all workers
share (Redis's). Each transition is harmless when applied twice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace

from clasper_worker.engine.circuit.policy import GatePolicy

_MAX_DOUBLINGS = 30  # far beyond every cap


@dataclass(frozen=True, slots=True)
class GateState:
    """One host's trouble; the default is that there is none.

    Attributes:
        open_until: when a probe may be made; 0 while the circuit is closed.
        trips: how often in a row it opened, or a probe failed.
        probe: who makes the probe; empty while nobody does.
        probe_until: until when that is believed without news.
        recovered_at: when the circuit last closed; 0 if it never was open.
        paused_until: until when the host asked for silence.
        pauses: how many of its 429 in a row named no time.
    """

    open_until: float = 0.0
    trips: int = 0
    probe: str = ""
    probe_until: float = 0.0
    recovered_at: float = 0.0
    paused_until: float = 0.0
    pauses: int = 0

    @property
    def is_open(self) -> bool:
        """Whether the circuit is open, or half-open."""
        return self.open_until > 0.0

    def is_paused(self, now: float) -> bool:
        """Whether the host is to be left alone for a while."""
        return now < self.paused_until

    def may_probe(self, now: float) -> bool:
        """Whether the circuit is open, cooled down, and nobody probes."""
        taken = bool(self.probe) and now < self.probe_until
        return self.is_open and now >= self.open_until and not taken and not self.is_paused(now)

    def limit(self, now: float, policy: GatePolicy) -> float:
        """How many requests may be under way from one process; infinite without trouble."""
        if self.is_open or self.is_paused(now):
            return 0
        ended = max(self.recovered_at, self.paused_until)
        age = now - ended
        if ended <= 0 or age >= policy.slow_start_for:
            return math.inf
        return math.floor(policy.slow_start * 2 ** (max(age, 0.0) / policy.doubling))


CLEAR = GateState()
Transition = Callable[[GateState, float], GateState]


def trip(policy: GatePolicy, jitter: float) -> Transition:
    """Failures in a row: open the circuit, unless it is.

    Args:
        policy: the cool-downs.
        jitter: 0 to 1; lengthens the cool-down by up to a fifth.
    """

    def apply(state: GateState, now: float) -> GateState:
        if state.is_open:
            return state
        relapsed = state.recovered_at > 0 and now - state.recovered_at < policy.relapse
        return _opened(state, now, state.trips + 1 if relapsed else 1, policy, jitter)

    return apply


def claim_probe(token: str, policy: GatePolicy) -> Transition:
    """Become the one that probes, or stay it; whoever's token then is in ``probe``, is."""

    def apply(state: GateState, now: float) -> GateState:
        if state.probe == token or state.may_probe(now):
            return replace(state, probe=token, probe_until=now + policy.probe_lease)
        return state

    return apply


def probe_answered(token: str) -> Transition:
    """The probe was answered: close the circuit."""

    def apply(state: GateState, now: float) -> GateState:
        if state.probe != token:
            return state
        return replace(state, open_until=0.0, probe="", probe_until=0.0, recovered_at=now)

    return apply


def probe_failed(token: str, policy: GatePolicy, jitter: float) -> Transition:
    """The probe failed: cool down for longer."""

    def apply(state: GateState, now: float) -> GateState:
        if state.probe != token:
            return state
        return _opened(state, now, state.trips + 1, policy, jitter)

    return apply


def probe_abandoned(token: str) -> Transition:
    """The probe ended without telling anything, as its turn was stopped: let another try."""

    def apply(state: GateState, now: float) -> GateState:
        del now
        return replace(state, probe="", probe_until=0.0) if state.probe == token else state

    return apply


def pause(seconds: float | None, policy: GatePolicy, jitter: float) -> Transition:
    """The host limits our rate: leave it alone for so long, or for longer each time.

    Args:
        seconds: as the host named it; None if it did not.
        policy: the caps.
        jitter: 0 to 1; adds up to a tenth, never takes away.
    """

    def apply(state: GateState, now: float) -> GateState:
        stretch = 1.0 + 0.1 * jitter
        if seconds is not None:
            until = now + min(seconds, policy.max_pause) * stretch
            return replace(state, paused_until=max(state.paused_until, until), pauses=0)
        if state.is_paused(now):
            return state  # of the same burst as the one that began it
        most = min(policy.max_unnamed_pause, policy.max_pause)
        last = _doubled(policy.pause, state.pauses, most)
        again = state.pauses > 0 and now - state.paused_until < last + policy.slow_start_for
        pauses = state.pauses + 1 if again else 1
        until = now + _doubled(policy.pause, pauses, most) * stretch
        return replace(state, paused_until=until, pauses=pauses)

    return apply


def clamped(policy: GatePolicy) -> Transition:
    """Bound what was read: a shared clock that was set back must not close a gate for long."""

    def apply(state: GateState, now: float) -> GateState:
        if state is CLEAR:
            return state
        return replace(
            state,
            open_until=min(state.open_until, now + policy.max_cooldown * 1.2),
            probe_until=min(state.probe_until, now + policy.probe_lease),
            recovered_at=min(state.recovered_at, now),
            paused_until=min(state.paused_until, now + policy.max_pause * 1.1),
        )

    return apply


def _opened(
    state: GateState, now: float, trips: int, policy: GatePolicy, jitter: float
) -> GateState:
    cooldown = _doubled(policy.cooldown, trips, policy.max_cooldown) * (1.0 + 0.2 * jitter)
    return replace(state, open_until=now + cooldown, trips=trips, probe="", probe_until=0.0)


def _doubled(first: float, times: int, most: float) -> float:
    return min(most, first * 2.0 ** min(max(times - 1, 0), _MAX_DOUBLINGS))


def encode(state: GateState) -> str:
    """The state as JSON."""
    return json.dumps(asdict(state), separators=(",", ":"))


def decode(text: str | bytes | None) -> GateState:
    """Read it again; what is missing or not understood means no trouble."""
    if not text:
        return CLEAR
    try:
        data = json.loads(text)
        known = {field.name: field for field in fields(GateState)}
        kinds = {"probe": str, "trips": int, "pauses": int}
        state = GateState(
            **{name: kinds.get(name, float)(data[name]) for name in known if name in data}
        )
    except (ValueError, TypeError, OverflowError):
        return CLEAR
    numbers = (state.open_until, state.probe_until, state.recovered_at, state.paused_until)
    return state if all(math.isfinite(number) for number in numbers) else CLEAR
