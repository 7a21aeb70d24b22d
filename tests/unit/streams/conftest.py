"""Streams on a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis

from clasper_worker.engine.redis.scripts import State, redis_client
from clasper_worker.observability.events import TurnReference
from clasper_worker.streams.reader import StreamReader
from clasper_worker.streams.results import JobOutcome
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


class Ends:
    """Jobs' ends, as a test says them."""

    def __init__(self) -> None:
        self._outcomes: dict[str, JobOutcome] = {}
        self._said = asyncio.Condition()

    async def say(self, job_id: str, outcome: JobOutcome) -> None:
        async with self._said:
            self._outcomes[job_id] = outcome
            self._said.notify_all()

    async def succeed(self, job_id: str, response: str) -> None:
        await self.say(job_id, JobOutcome("SUCCESS", result={"response": response}))

    async def wait(self, job_id: str, seconds: float) -> JobOutcome:
        del seconds
        async with self._said:
            await self._said.wait_for(lambda: job_id in self._outcomes)
            return self._outcomes[job_id]


@asynccontextmanager
async def opened_reader(url: str, ends: Any, **options: Any) -> AsyncIterator[StreamReader]:
    client = redis_client(url)
    reader = StreamReader(client, ends, **options)
    try:
        yield reader
    finally:
        await reader.close()
        await client.aclose()


class Listener:
    """A consumer that drops what is void, may be cut after any event, and comes again."""

    def __init__(self, job_id: str = "t1", turn_id: str | None = None) -> None:
        self.job_id, self.turn_id = job_id, turn_id or job_id
        self.ids: list[str] = []
        self.types: list[str] = []
        self.texts: dict[int, str] = {}
        self.last: dict[str, Any] | None = None

    async def listen(self, reader: StreamReader, *, at_most: int = 1_000_000) -> None:
        """Take so many events, or all up to the last."""
        follower = reader.follow(self.job_id, self.turn_id, self.ids[-1] if self.ids else None)
        try:
            async for batch in follower.batches():
                for event in batch:
                    self._take(str(event.id), event.data)
                    at_most -= 1
                    if not at_most:
                        return
        finally:
            follower.close()

    def _take(self, event_id: str, data: dict[str, Any]) -> None:
        assert self.last is None, "nothing comes after the last event"
        assert event_id not in self.ids, "each event comes once"
        self.ids.append(event_id)
        self.types.append(data["type"])
        if data["type"] == "chunk":
            self.texts[data["step"]] = self.texts.get(data["step"], "") + data["data"]
        elif data["type"] == "retry":
            self.texts.pop(data["step"], None)
        elif data["type"] in {"done", "error"}:
            self.last = data

    @property
    def text(self) -> str | None:
        """The chunks of the last step."""
        return self.texts[max(self.texts)] if self.texts else None
