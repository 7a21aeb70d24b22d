"""Gates in virtual time: workers, a shared store, and a host with bad times."""

import asyncio
from collections.abc import MutableMapping, Sequence
from typing import Any

import pytest
import structlog.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clasper_worker.engine.circuit.gate import Passage
from clasper_worker.engine.circuit.policy import (
    ANSWERED,
    GateClosedError,
    GatePolicy,
    Outcome,
    Patience,
)
from tests.examples import examples
from tests.unit.engine.circuit.simulation import Host, HostError, Mood, SharedStore, Worker, at
from tests.unit.engine.circuit.virtual_time import run_virtually

OUTAGE = 120.0


@pytest.mark.parametrize("mood", ["refuses", "fails", "limits", "limits-named"])
def test_a_thousand_turns_neither_hammer_nor_fail_while_the_host_is_down_for_two_minutes(
    mood: Mood,
) -> None:
    async def main() -> tuple[Host, float, list[Any]]:
        store, host = SharedStore(), Host(mood, named=15.0)
        workers = [Worker(store) for _ in range(2)]
        began = asyncio.get_running_loop().time()
        changing = asyncio.create_task(at(OUTAGE, host, "well"))
        turns = []
        for number in range(1000):
            turns.append(asyncio.create_task(workers[number % 2].turn(host)))
            await asyncio.sleep(0.002)
        outcomes = await asyncio.gather(*turns, return_exceptions=True)
        await changing
        for worker in workers:
            await worker.gates.close()
        return host, began, outcomes

    host, began, outcomes = run_virtually(main())
    assert outcomes == ["answer"] * 1000
    end = began + OUTAGE
    first = [when for when in host.calls if when < began + 3]
    during = [when for when in host.calls if began + 3 <= when < end]
    # What was sent before the first answer told of the outage, and then probes.
    assert len(first) < 120
    assert len(during) < 60
    # 1,000 turns come back gradually, and are all through half a minute later.
    second = [when for when in host.calls if end <= when < end + 1]
    assert len(second) < 100
    assert host.calls[-1] < end + 30


def test_a_wait_that_one_worker_was_asked_for_is_honoured_by_all() -> None:
    async def main() -> tuple[list[float], list[Any]]:
        store, host = SharedStore(), Host("limits-named", named=30.0)
        one, other = Worker(store), Worker(store)
        first = asyncio.create_task(one.turn(host))
        await asyncio.sleep(1.2)
        host.mood = "well"
        host.calls.clear()
        answers = await asyncio.gather(first, *(other.turn(host) for _ in range(50)))
        await asyncio.gather(one.gates.close(), other.gates.close())
        return host.calls, list(answers)

    calls, answers = run_virtually(main())
    assert answers == ["answer"] * 51
    # It was asked at 1,000.1 for 30 s.
    assert min(calls) >= 1_030.1


def test_a_worker_that_saw_no_error_itself_learns_of_an_outage_before_its_first_request() -> None:
    async def main() -> int:
        store, host = SharedStore(), Host("refuses")
        one, idle = Worker(store), Worker(store)
        await idle.turn(Host())
        lone = asyncio.create_task(one.turn(host))
        await _until(lambda: one.gate.state.is_open)
        await asyncio.sleep(10)
        seen = len(host.calls)
        turns = [asyncio.create_task(idle.turn(host)) for _ in range(100)]
        await asyncio.sleep(0.2)
        sent = len(host.calls) - seen
        for turn in (lone, *turns):
            turn.cancel()
        await asyncio.gather(lone, *turns, return_exceptions=True)
        await asyncio.gather(one.gates.close(), idle.gates.close())
        return sent

    assert run_virtually(main()) <= 1


def test_a_healthy_host_costs_one_read_a_second_at_most_and_nothing_when_idle() -> None:
    async def main() -> tuple[int, int]:
        store, host = SharedStore(), Host(seconds=0.01)
        worker = Worker(store)
        for _ in range(1000):  # ten seconds
            await worker.turn(host)
        await asyncio.sleep(3600)
        await worker.gates.close()
        return store.reads, store.updates

    reads, updates = run_virtually(main())
    assert reads <= 11
    assert updates == 0


def test_a_lone_turn_waits_through_an_outage_as_the_probes_cost_it_no_tries() -> None:
    async def main() -> tuple[str, int]:
        host = Host("refuses")
        worker = Worker(SharedStore(), GatePolicy(failures=1))
        changing = asyncio.create_task(at(OUTAGE, host, "well"))
        answer = await worker.turn(host)
        await changing
        await worker.gates.close()
        return answer, len(host.calls)

    answer, calls = run_virtually(main())
    assert answer == "answer"
    assert calls < 20


def test_after_its_patience_a_turn_gets_the_last_error() -> None:
    async def main() -> tuple[BaseException | None, float]:
        host = Host("refuses")
        worker = Worker(SharedStore(), GatePolicy(failures=1, wait=20))
        began = asyncio.get_running_loop().time()
        with pytest.raises(GateClosedError) as caught:
            await worker.turn(host)
        await worker.gates.close()
        return caught.value.__cause__, asyncio.get_running_loop().time() - began

    cause, took = run_virtually(main())
    assert isinstance(cause, HostError)
    assert 20 <= took < 21


def test_errors_of_the_request_itself_do_not_open_the_circuit() -> None:
    async def main() -> bool:
        worker = Worker(SharedStore())
        for _ in range(100):
            async with worker.gate.passage(worker.gate.patience()) as passage:
                passage.report(Outcome(answered=True))
        for _ in range(100):  # failures, but not in a row
            for outcome in (Outcome(failed=True), ANSWERED):
                async with worker.gate.passage(worker.gate.patience()) as passage:
                    passage.report(outcome)
        blocked = worker.gate.is_blocked
        await worker.gates.close()
        return blocked

    assert not run_virtually(main())


def test_one_that_does_not_wait_for_outages_goes_elsewhere_at_once_or_probes() -> None:
    async def main() -> tuple[float, int, str]:
        host = Host("refuses")
        worker = Worker(SharedStore(), GatePolicy(failures=1))
        loop = asyncio.get_running_loop()
        with pytest.raises(GateClosedError):
            await worker.turn(host, Patience(2, for_outages=False))
        began = loop.time()
        for _ in range(100):
            with pytest.raises(GateClosedError):
                await worker.turn(host, Patience(2, for_outages=False))
        took = loop.time() - began
        sent = len(host.calls)
        host.mood = "well"
        await asyncio.sleep(5)
        answer = await worker.turn(host, Patience(2, for_outages=False))
        await worker.gates.close()
        return took, sent, answer

    took, sent, answer = run_virtually(main())
    assert took < 0.1
    assert sent == 1
    assert answer == "answer"


def test_a_stopped_probe_makes_room_for_another() -> None:
    async def main() -> str:
        host = Host("refuses")
        worker = Worker(SharedStore(), GatePolicy(failures=1))
        first = asyncio.create_task(worker.turn(host))
        await _until(lambda: worker.gate.state.is_open)
        host.mood, host.seconds = "well", 1000.0
        await _until(lambda: bool(worker.gate.state.probe) and host.at_once == 1)
        second = asyncio.create_task(worker.turn(host))
        await asyncio.sleep(20)  # longer than a claim is believed: it was renewed
        assert host.at_once == 1
        host.seconds = 0.1
        first.cancel()
        answer = await second
        await asyncio.gather(first, return_exceptions=True)
        await worker.gates.close()
        return answer

    assert run_virtually(main()) == "answer"


def test_a_store_out_of_reach_breaks_nothing_and_the_process_still_waits() -> None:
    async def main() -> tuple[list[str], int, int]:
        store, host = SharedStore(), Host("fails")
        store.reachable = False
        worker = Worker(store)
        changing = asyncio.create_task(at(OUTAGE, host, "well"))
        answers = await asyncio.gather(*(worker.turn(host) for _ in range(200)))
        await changing
        await worker.gates.close()
        return list(answers), len(host.calls), store.reads + store.updates

    with structlog.testing.capture_logs() as logs:
        answers, calls, attempts = run_virtually(main())
    assert answers == ["answer"] * 200
    assert calls < 200 + 200 + 20  # all at once, then probes, then all again
    assert attempts < 40
    assert _gate_events(logs) == ["gate.not_shared", "gate.opened", "gate.closed"]


def test_opening_closing_and_pausing_are_logged_once_by_whoever_did_it() -> None:
    async def main() -> None:
        store, host = SharedStore(), Host("refuses")
        workers = [Worker(store) for _ in range(3)]
        changing = asyncio.create_task(at(OUTAGE, host, "well"))
        await asyncio.gather(*(worker.turn(host) for worker in workers for _ in range(50)))
        await changing
        host.mood = "limits-named"
        changing = asyncio.create_task(at(0.15, host, "well"))
        await asyncio.gather(*(worker.turn(host) for worker in workers for _ in range(50)))
        await changing
        for worker in workers:
            await worker.gates.close()

    with structlog.testing.capture_logs() as logs:
        run_virtually(main())
    assert _gate_events(logs) == ["gate.opened", "gate.closed", "gate.paused"]
    hosts = {entry["host"] for entry in logs if entry["event"].startswith("gate.")}
    assert hosts == {"http://host.test:80"}


def test_closing_the_gates_sends_waiting_turns_away() -> None:
    async def main() -> list[Any]:
        worker = Worker(SharedStore(), GatePolicy(failures=1))
        turns = [asyncio.create_task(worker.turn(Host("refuses"))) for _ in range(3)]
        await _until(lambda: worker.gate.state.is_open)
        await asyncio.sleep(0.5)
        await worker.gates.close()
        return await asyncio.gather(*turns, return_exceptions=True)

    assert [type(outcome) for outcome in run_virtually(main())] == [GateClosedError] * 3


MOODS = st.sampled_from(["well", "refuses", "fails", "limits", "limits-named", "hangs"])
ARRIVAL = st.tuples(
    st.floats(0, 5),  # seconds since the one before
    st.integers(0, 2),  # the worker
    st.one_of(st.none(), st.floats(0, 20)),  # seconds after which it is stopped
)


@settings(max_examples=examples(60))
@given(
    times=st.lists(st.tuples(st.floats(0.1, 60), MOODS), max_size=6),
    arrivals=st.lists(ARRIVAL, min_size=1, max_size=40),
)
@example(
    times=[(1.0, "limits-named")],
    arrivals=[(0.0, 0, None), (0.0, 1, 0.0), (2.0, 1, None)],
)
def test_whatever_happens_one_probes_waits_are_honoured_and_all_get_through_in_the_end(
    times: list[tuple[float, Mood]], arrivals: list[tuple[float, int, float | None]]
) -> None:
    async def main() -> None:
        await _Scene().play(times, arrivals)

    run_virtually(main())


def _gate_events(logs: Sequence[MutableMapping[str, Any]]) -> list[str]:
    return [entry["event"] for entry in logs if entry["event"].startswith("gate.")]


class _Scene:
    """Three workers, one host, and turns that watch what must hold at all times."""

    def __init__(self) -> None:
        self.host = Host()
        store, policy = SharedStore(), GatePolicy(failures=2, wait=100_000)
        self.workers = [Worker(store, policy) for _ in range(3)]
        self.probes = 0

    async def play(
        self,
        times: list[tuple[float, Mood]],
        arrivals: list[tuple[float, int, float | None]],
    ) -> None:
        changing = asyncio.create_task(self._moods(times))
        stopped: list[asyncio.Task[None]] = []
        staying: list[asyncio.Task[None]] = []
        for pause, number, stop in arrivals:
            await asyncio.sleep(pause)
            turn = asyncio.create_task(self._turn(self.workers[number]))
            (staying if stop is None else stopped).append(turn)
            if stop is not None:
                asyncio.get_running_loop().call_later(stop, turn.cancel)
        await changing
        async with asyncio.timeout(200):
            await asyncio.gather(*staying)
        for outcome in await asyncio.gather(*stopped, return_exceptions=True):
            assert outcome is None or isinstance(outcome, asyncio.CancelledError), repr(outcome)
        for worker in self.workers:
            assert worker.gate._in_flight == 0
            assert not worker.gate._has_waiters()
            await worker.gates.close()

    async def _moods(self, times: list[tuple[float, Mood]]) -> None:
        for seconds, mood in times:
            self.host.mood = mood
            await asyncio.sleep(seconds)
        self.host.mood = "well"

    async def _turn(self, worker: Worker) -> None:
        patience = worker.gate.patience()
        while True:
            async with worker.gate.passage(patience) as passage:
                self._check(worker, passage)
                outcome = await self._ask(passage)
                passage.report(outcome)
            if outcome.answered:
                return
            await asyncio.sleep(0.5)

    def _check(self, worker: Worker, passage: Passage) -> None:
        now = asyncio.get_running_loop().time()
        assert not passage.probe or self.probes == 0, "two probes"
        assert not worker.gate.state.is_paused(worker.gates.now())
        # A second until all workers know.
        known = now - self.host.silence_from > 1.3
        assert not known or now >= self.host.silence_until - 0.01, "a wait was not honoured"

    async def _ask(self, passage: Passage) -> Outcome:
        self.probes += bool(passage.probe)
        try:
            await self.host.answer()
        except HostError as exc:
            return exc.verdict.outcome
        finally:
            self.probes -= bool(passage.probe)
        return ANSWERED


async def _until(condition: Any) -> None:
    async with asyncio.timeout(3600):
        while not condition():  # noqa: ASYNC110 - the gate has no event for it
            await asyncio.sleep(0.01)
