"""Streams on a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis

from clasper_worker.engine.redis.scripts import State, redis_client
from clasper_worker.observability.events import TurnReference
from clasper_worker.streams.writer import StreamWriter


@pytest.fixture
def server(redis_server: Any) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield client


@asynccontextmanager
async def opened_writer(url: str, **options: Any) -> AsyncIterator[StreamWriter]:
    client = redis_client(url)
    state = State(client, seconds=5.0)
    writer = StreamWriter(state, running_seconds=600, **options)
    try:
        yield writer
    finally:
        await writer.close()
        await state.aclose()
        await client.aclose()


def a_turn(turn_id: str = "t1", *, run: int = 1, job_id: str | None = None,
           streamed: bool = True) -> TurnReference:  # fmt: skip
    return TurnReference(
        turn_id, job_id or turn_id, "trace", "u1", "user:u1:r", "r", streamed=streamed, run=run
    )


def run(coroutine: Callable[[], Any]) -> Any:
    return asyncio.run(coroutine())
