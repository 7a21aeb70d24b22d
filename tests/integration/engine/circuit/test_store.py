"""Gates of two workers that share a real Redis."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from clasper_worker.devkit.local_stack.redis_server import find_redis, start_redis
from clasper_worker.engine.circuit import breaker as states
from clasper_worker.engine.circuit.breaker import CLEAR, GateState
from clasper_worker.engine.circuit.gate import HostGate
from clasper_worker.engine.circuit.gates import Gates
from clasper_worker.engine.circuit.policy import GatePolicy, Outcome
from clasper_worker.engine.circuit.store import PREFIX, RedisStore, StoreError
from clasper_worker.engine.redis.scripts import redis_client
from tests.waiting import eventually

pytestmark = pytest.mark.integration
POLICY = GatePolicy(failures=1, cooldown=0.3, max_cooldown=0.3)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    if find_redis() is None:
        pytest.skip("no Redis server here: install redis-server")
    with start_redis() as server:
        yield server.url


@asynccontextmanager
async def store_at(url: str) -> AsyncIterator[RedisStore]:
    client = redis_client(url)
    await client.ping()
    try:
        yield RedisStore(client)
    finally:
        await client.aclose()


async def report(gate: HostGate, outcome: Outcome) -> None:
    """One request with this outcome, and what it told shared."""
    async with gate.passage(gate.patience()) as passage:
        passage.report(outcome)
    await eventually(lambda: not gate.known._unshared)


async def test_changes_made_at_the_same_time_are_all_kept(redis_url: str) -> None:
    def one_more(state: GateState, now: float) -> GateState:
        return GateState(trips=state.trips + 1, recovered_at=now)

    async with store_at(redis_url) as store:
        assert (await store.read(["count"])).states == (CLEAR,)
        changes = await asyncio.gather(*(store.update("count", one_more) for _ in range(10)))
        assert sorted(change.after.trips for change in changes) == list(range(1, 11))
        reading = await store.read(["nothing", "count"])
        assert [state.trips for state in reading.states] == [0, 10]
        assert abs(reading.now - time.time()) < 60


async def test_a_state_does_not_stay_for_ever(redis_url: str) -> None:
    async with store_at(redis_url) as store:
        await store.update("ttl", states.pause(5, POLICY, 0))
    client = redis_client(redis_url)
    assert 0 < await client.pttl(f"{PREFIX}ttl") <= 600_000
    await client.aclose()


async def test_what_one_worker_saw_the_other_knows_and_one_of_them_probes(redis_url: str) -> None:
    async with store_at(redis_url) as mine, store_at(redis_url) as yours:
        boards = [Gates(mine, POLICY), Gates(yours, POLICY)]
        one, other = (board.gate("http://outage.test") for board in boards)
        await report(other, Outcome(answered=True))
        await report(one, Outcome(failed=True))

        probes: list[str] = []
        release = asyncio.Event()

        async def request(gate: HostGate) -> None:
            async with gate.passage(gate.patience()) as passage:
                probes.append(passage.probe)
                await release.wait()
                passage.report(Outcome(answered=True))

        await boards[1].refresh(0)
        assert other.state.is_open
        turns = [asyncio.create_task(request(gate)) for gate in (one, other) for _ in range(5)]
        await eventually(lambda: len(probes) == 1)
        for board in boards:
            await board.refresh(0)
        assert len(probes) == 1
        assert probes[0]
        release.set()
        await asyncio.gather(*turns)
        assert probes[1:] == [""] * 9
        for board in boards:
            await board.close()


async def test_a_wait_that_one_worker_was_asked_for_is_honoured_by_the_other(
    redis_url: str,
) -> None:
    async with store_at(redis_url) as mine, store_at(redis_url) as yours:
        boards = [Gates(mine, POLICY), Gates(yours, POLICY)]
        one, other = (board.gate("http://limit.test", "m") for board in boards)
        asked = time.monotonic()
        await report(one, Outcome(limited=True, wait=1.0))
        await report(other, Outcome(answered=True))  # its first request: it looks before
        assert time.monotonic() - asked >= 0.99
        for board in boards:
            await board.close()


async def test_without_redis_the_store_says_so_and_requests_still_pass() -> None:
    client: Any = redis_client("redis://127.0.0.1:1/0")
    store = RedisStore(client)
    with pytest.raises(StoreError):
        await store.read(["x"])
    board = Gates(store, POLICY)
    gate = board.gate("http://alone.test")
    await report(gate, Outcome(failed=True))
    assert gate.is_blocked
    await report(gate, Outcome(answered=True))
    assert not gate.is_blocked
    await board.close()
    await client.aclose()
