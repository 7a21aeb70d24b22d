"""An empty Redis for notes and locks, and a queue that remembers."""

from collections.abc import AsyncIterator, Sequence

import pytest

from clasper_worker.devkit.local_stack.redis_server import RunningRedis
from clasper_worker.engine.redis.scripts import State, redis_client
from clasper_worker.periodic.enqueue import Job
from clasper_worker.periodic.notes import Slots


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
