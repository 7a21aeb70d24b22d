"""The circuit breaker and the shared wait, as pure functions."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clasper_worker.engine.circuit import breaker as states
from clasper_worker.engine.circuit.breaker import CLEAR, GateState, decode, encode
from clasper_worker.engine.circuit.policy import GatePolicy

POLICY = GatePolicy()
NOW = 1_000.0
JITTER = st.floats(0, 1)
WORKERS = st.sampled_from(["a", "b", "c"])


def test_the_cool_down_doubles_with_each_failed_probe_up_to_its_cap() -> None:
    state, now, waits = states.trip(POLICY, 0)(CLEAR, NOW), NOW, []
    for _ in range(6):
        waits.append(state.open_until - now)
        now = state.open_until
        state = states.claim_probe("a", POLICY)(state, now)
        state = states.probe_failed("a", POLICY, 0)(state, now)
    assert waits == [1, 2, 4, 8, 10, 10]


def test_a_circuit_that_opens_again_soon_goes_on_doubling_and_later_begins_anew() -> None:
    recovered = GateState(trips=3, recovered_at=NOW)
    assert states.trip(POLICY, 0)(recovered, NOW + 5).trips == 4
    assert states.trip(POLICY, 0)(recovered, NOW + 61).trips == 1


def test_429_without_a_time_waits_longer_each_time_but_a_burst_counts_once() -> None:
    state, now, waits = CLEAR, NOW, []
    for _ in range(7):
        for _ in range(3):
            state = states.pause(None, POLICY, 0)(state, now)
        waits.append(state.paused_until - now)
        now = state.paused_until + 1
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    later = states.pause(None, POLICY, 0)(state, now + 100)
    assert later.paused_until == now + 101


def test_a_named_wait_is_never_shortened_and_is_capped() -> None:
    state = states.pause(50, POLICY, 0)(CLEAR, NOW)
    assert states.pause(5, POLICY, 0)(state, NOW) == state
    assert states.pause(None, POLICY, 0)(state, NOW) == state
    assert states.pause(math.inf, POLICY, 0)(CLEAR, NOW).paused_until == NOW + 120


def test_the_number_of_requests_at_a_time_doubles_each_second_until_it_is_free() -> None:
    state = GateState(recovered_at=NOW, trips=1)
    limits = [state.limit(NOW + age, POLICY) for age in (0, 1, 2, 9, 10)]
    assert limits == [2, 4, 8, 1024, math.inf]
    assert CLEAR.limit(0.5, POLICY) == math.inf


def test_a_clock_that_was_set_back_does_not_close_a_gate_for_long() -> None:
    state = GateState(open_until=1e9, probe="a", probe_until=1e9, paused_until=1e9)
    bounded = states.clamped(POLICY)(state, NOW)
    assert bounded.open_until == NOW + 12
    assert bounded.probe_until == NOW + 10
    assert bounded.paused_until == pytest.approx(NOW + 132)


@pytest.mark.parametrize(
    "text", [None, "", b"", "{", "[]", "5", "null", '{"open_until": "x"}', '{"trips": null}',
             '{"open_until": NaN}', '{"paused_until": Infinity}', b"\xff"],
)  # fmt: skip
def test_what_cannot_be_read_means_no_trouble(text: str | bytes | None) -> None:
    assert decode(text) == CLEAR


TIMES = st.floats(0, 1e10)


@given(st.builds(GateState, TIMES, st.integers(0, 99), st.text(), TIMES, TIMES, TIMES,
                 st.integers(0, 99)))  # fmt: skip
def test_a_state_survives_being_written_and_read(state: GateState) -> None:
    assert decode(encode(state)) == state
    newer = encode(state)[:-1] + ',"added_later":1}'
    assert decode(newer) == state


class Breaker(RuleBasedStateMachine):
    """Several workers change one state, in any order, with any news."""

    def __init__(self) -> None:
        super().__init__()
        self.state = CLEAR
        self.now = NOW
        self.probing: str | None = None
        self.asked_until = 0.0

    def see(self, change: states.Transition) -> None:
        self.state = change(self.state, self.now)
        assert change(self.state, self.now) == self.state, "twice is once"

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        # A living worker renews its claim.
        if self.probing is not None:
            self.state = states.claim_probe(self.probing, POLICY)(self.state, self.now)

    @rule(jitter=JITTER)
    def failures_in_a_row(self, jitter: float) -> None:
        self.see(states.trip(POLICY, jitter))
        assert self.state.limit(self.now, POLICY) == 0

    @rule(seconds=st.one_of(st.none(), st.floats(0.1, 500)), jitter=JITTER)
    def rate_limited(self, seconds: float | None, jitter: float) -> None:
        change = states.pause(seconds, POLICY, jitter)
        self.state = change(self.state, self.now)
        wait = 0.0 if seconds is None else min(seconds, POLICY.max_pause)
        self.asked_until = max(self.asked_until, self.now + wait)

    @rule(who=WORKERS)
    def wants_to_probe(self, who: str) -> None:
        before = self.state
        self.see(states.claim_probe(who, POLICY))
        if self.state.probe == who and self.probing != who:
            assert self.probing is None, "two probes"
            assert before.is_open
            assert self.now >= self.asked_until
            self.probing = who

    @precondition(lambda self: self.probing is not None)
    @rule(end=st.sampled_from(["answered", "failed", "abandoned"]), jitter=JITTER)
    def probe_ends(self, end: str, jitter: float) -> None:
        who, self.probing = self.probing or "", None
        change = {
            "answered": states.probe_answered(who),
            "failed": states.probe_failed(who, POLICY, jitter),
            "abandoned": states.probe_abandoned(who),
        }[end]
        self.see(change)
        assert self.state.is_open == (end != "answered")

    @rule(who=WORKERS)
    def an_old_probe_of_nobody_tells_nothing(self, who: str) -> None:
        if self.probing != who:
            before = self.state
            for change in (states.probe_answered(who), states.probe_abandoned(who),
                           states.probe_failed(who, POLICY, 0)):  # fmt: skip
                self.see(change)
            assert self.state == before

    @invariant()
    def nothing_passes_while_open_or_asked_for_silence(self) -> None:
        if self.state.is_open or self.now < self.asked_until:
            assert self.state.limit(self.now, POLICY) == 0

    @invariant()
    def once_the_host_is_well_all_get_through_within_bounded_time(self) -> None:
        # As workers see it who all died: the claim of a probe runs out by itself.
        state, now = self.state, self.now
        now = max(state.open_until, state.probe_until, state.paused_until, now)
        assert now <= self.now + POLICY.max_pause * 1.1 + POLICY.max_cooldown * 1.2
        if state.is_open:
            state = states.claim_probe("z", POLICY)(state, now)
            assert state.probe == "z"
            state = states.probe_answered("z")(state, now)
        assert state.limit(now, POLICY) >= 1
        assert state.limit(now + POLICY.slow_start_for + 0.01, POLICY) == math.inf


TestBreaker = Breaker.TestCase
