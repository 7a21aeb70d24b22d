"""Our own state in a real Redis, with more callers than connections."""

import asyncio
from collections.abc import Iterator

import pytest

from clasper_worker.devkit.local_stack.redis_server import find_redis, start_redis
from clasper_worker.engine.redis.scripts import State, redis_client, redis_lock
from clasper_worker.turn.journal_store import RedisLedger

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    if find_redis() is None:
        pytest.skip("no Redis server here: install redis-server")
    with start_redis() as server:
        yield server.url


async def test_a_thousand_turns_at_once_share_a_few_connections(redis_url: str) -> None:
    client = redis_client(redis_url)
    state = State(client)
    ledger = RedisLedger(state, ttl_seconds=60)
    claims = await asyncio.gather(*(ledger.claim(f"t{n}", "digest") for n in range(1000)))
    assert claims == [{"request": "digest"}] * 1000
    assert (await client.info("clients"))["connected_clients"] <= 4
    await state.aclose()
    await client.aclose()


async def test_a_lock_is_held_by_one_at_a_time(redis_url: str) -> None:
    client = redis_client(redis_url)
    lock = redis_lock(client)
    inside: list[int] = []
    most: list[int] = []

    async def hold(number: int) -> None:
        async with lock("name"):
            inside.append(number)
            most.append(len(inside))
            await asyncio.sleep(0)
            inside.remove(number)

    await asyncio.gather(*(hold(number) for number in range(20)))
    assert most == [1] * 20
    await client.aclose()
