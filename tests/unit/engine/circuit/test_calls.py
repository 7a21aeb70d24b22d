"""A request's tries: few for a failure that may be its own, more while its host fails."""

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from clasper_worker.engine.circuit.calls import (
    NO_ANSWER,
    NOTHING,
    WORKS,
    Pace,
    Verdict,
    call_persistently,
    verdict_on_status,
)
from clasper_worker.engine.circuit.policy import GatePolicy, Outcome, Patience
from tests.unit.engine.circuit.simulation import Host, HostError, SharedStore, Worker, at, judge
from tests.unit.engine.circuit.virtual_time import run_virtually

PACE = Pace(attempts=4, first_pause=0.5, longest_pause=8.0)
_NEVER = 10**9


class Flaky:
    """A host that other requests find well, and that loses the first so many of these."""

    def __init__(self, losses: int, error: HostError | None = None) -> None:
        self.losses = losses
        self.error = error or HostError(NO_ANSWER)
        self.calls = 0

    async def answer(self) -> str:
        self.calls += 1
        if self.calls <= self.losses:
            raise self.error
        return "answer"


def _ask(
    host: Flaky, pace: Pace = PACE, *, for_outages: bool = True, gated: bool = True
) -> tuple[str, float]:
    """What came of one request, and how long it took."""

    async def main() -> tuple[str, float]:
        loop = asyncio.get_running_loop()
        # The circuit never opens: each failure of this one stands between successes of others.
        worker = Worker(SharedStore(), GatePolicy(failures=_NEVER))
        began = loop.time()
        try:
            answer = await call_persistently(
                worker.gate if gated else None,
                Patience(240, for_outages=for_outages),
                host.answer,
                judge,
                pace,
            )
        except HostError:
            answer = "failed"
        await worker.gates.close()
        return answer, loop.time() - began

    return run_virtually(main())


def test_a_host_that_loses_many_answers_in_a_row_is_asked_again_past_the_number_of_attempts() -> (
    None
):
    host = Flaky(losses=9)
    assert _ask(host)[0] == "answer"
    assert host.calls == 10


def test_a_host_that_never_answers_this_request_is_given_up_after_the_persistence() -> None:
    answer, took = _ask(Flaky(losses=_NEVER))
    assert answer == "failed"
    assert 60 <= took < 60 + 8.0 + 0.5


def test_a_rate_limit_that_no_gate_took_up_ends_with_the_attempts() -> None:
    host = Flaky(_NEVER, HostError(verdict_on_status(408, None, passing=True)))
    assert _ask(host)[0] == "failed"
    assert host.calls == 4


def test_a_refusal_is_final() -> None:
    host = Flaky(_NEVER, HostError(verdict_on_status(400, None, passing=False)))
    assert _ask(host)[0] == "failed"
    assert host.calls == 1


@pytest.mark.parametrize(
    ("options", "attempts"),
    [
        ({"gated": False}, 4),
        ({"for_outages": False}, 4),
        ({"pace": Pace(1, 0.5, 8.0)}, 1),
    ],
    ids=["no gate", "another model is there", "one attempt"],
)
def test_who_does_not_wait_for_outages_is_not_persistent(
    options: dict[str, bool], attempts: int
) -> None:
    host = Flaky(_NEVER)
    assert _ask(host, **options)[0] == "failed"  # type: ignore[arg-type]
    assert host.calls == attempts


def test_tries_spent_before_one_outage_do_not_count_in_the_next() -> None:
    async def main() -> str:
        host = Host("refuses")
        worker = Worker(SharedStore(), GatePolicy(failures=3, cooldown=1.0))
        pace = Pace(attempts=4, first_pause=0.5, longest_pause=8.0, persistence=0.0)
        moods = [
            asyncio.create_task(at(seconds, host, mood))  # type: ignore[arg-type]
            for seconds, mood in ((30, "well"), (31, "refuses"), (90, "well"))
        ]
        others = asyncio.create_task(_others(worker, host))
        answer = await call_persistently(
            worker.gate, worker.gate.patience(), host.answer, judge, pace
        )
        await asyncio.gather(*moods)
        others.cancel()
        await worker.gates.close()
        return answer

    assert run_virtually(main()) == "answer"


async def _others(worker: Worker, host: Host) -> None:
    """Other requests, which take the probes: the one in question fails as its circuit closes."""
    while True:
        await asyncio.gather(*(worker.turn(host) for _ in range(3)), return_exceptions=True)
        await asyncio.sleep(0.5)


# What is counted

_COUNTED = replace(PACE, to="model")


def _count(to: str = "model") -> dict[str, float]:
    outcomes = ("answered", "failed", "limited", "refused", "broken")
    found = {
        outcome: REGISTRY.get_sample_value(
            "clasper_request_attempts_total", {"to": to, "outcome": outcome}
        )
        or 0.0
        for outcome in outcomes
    }
    retries = REGISTRY.get_sample_value("clasper_request_retries_total", {"to": to}) or 0.0
    return {**found, "retries": retries}


def _counted(host: Flaky, pace: Pace = _COUNTED, *, gated: bool = True) -> dict[str, float]:
    before = _count()
    _ask(host, pace, gated=gated)
    return {name: value - before[name] for name, value in _count().items() if value != before[name]}


@pytest.mark.parametrize("gated", [True, False])
def test_each_try_is_counted_and_those_beyond_the_first_as_retries(gated: bool) -> None:
    assert _counted(Flaky(0), gated=gated) == {"answered": 1}
    assert _counted(Flaky(2), gated=gated) == {"answered": 1, "failed": 2, "retries": 2}


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        (verdict_on_status(503, 1.0, passing=False), "failed"),
        (verdict_on_status(429, None, passing=True), "limited"),
        (WORKS, "refused"),
        (Verdict(Outcome(), passing=True), "broken"),
        (NOTHING, None),  # the lease was lost before anything was sent
    ],
)
def test_a_failed_try_is_counted_by_what_came_of_it(verdict: Verdict, outcome: str | None) -> None:
    once = replace(_COUNTED, attempts=1)
    found = _counted(Flaky(_NEVER, HostError(verdict)), once, gated=False)
    assert found == ({outcome: 1} if outcome else {})


def test_requests_to_other_hosts_are_not_counted() -> None:
    assert _counted(Flaky(2), PACE) == {}
