"""A Redis of its own for notes and locks, and a queue that remembers."""

from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from clasper_worker.jobs.queue import Job
from clasper_worker.jobs.slots import Slots
from clasper_worker.local_stack.redis_server import RunningRedis, find_redis, start_redis
from clasper_worker.state import State, redis_client


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RunningRedis]:
    if find_redis() is None:
        pytest.skip("no Redis server here: install redis-server")
    with start_redis() as server:
        yield server


@pytest.fixture
async def slots(redis_server: RunningRedis) -> AsyncIterator[Slots]:
    client = redis_client(redis_server.url)
    await client.flushall()
    state = State(client)
    yield Slots(state)
    await state.aclose()
    await client.aclose()


class RecordingQueue:
    def __init__(self) -> None:
        self.jobs: list[Job] = []

    async def put(self, jobs: Sequence[Job]) -> None:
        self.jobs += jobs


@pytest.fixture
def queue() -> RecordingQueue:
    return RecordingQueue()
