"""A turn's events in Python: ``for event in stream`` or ``async for event in stream``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager

from clasper_worker.streams.reader import StreamReader
from clasper_worker.streams.schema import StreamEvent, read_event

_STOP_SECONDS = 5.0
OpenReader = Callable[[], AbstractAsyncContextManager[StreamReader]]


class TurnStream:
    """A job's events, typed, up to `DoneEvent` or `ErrorEvent`.

    It goes on by itself after Redis was away. To go on in another process, keep ``last_event_id``.
    Leaving the loop cancels nothing.

    Args:
        open_reader: makes a reader inside the event loop that will use it.
        job_id: the job's id, or its turn's.
        turn_id: its turn's, where that is known.
        last_event_id: the last event that came; from the first where it is None.

    Attributes:
        job_id, turn_id, last_event_id: as above; the last is kept up to date.
    """

    def __init__(
        self,
        open_reader: OpenReader,
        job_id: str,
        turn_id: str | None = None,
        last_event_id: str | None = None,
    ) -> None:
        self._open_reader = open_reader
        self.job_id = job_id
        self.turn_id = turn_id
        self.last_event_id = last_event_id

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        """Its events.

        Raises:
            InvalidRequestError: ``last_event_id`` is no event's.
            StateUnavailableError: Redis does not answer.
        """
        return self._events()

    def __iter__(self) -> Iterator[StreamEvent]:
        """Its events; what is waited for is done in a thread of its own."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="clasper-stream", daemon=True)
        thread.start()
        events = self._events()
        try:
            while True:
                event = asyncio.run_coroutine_threadsafe(_next(events), loop).result()
                if event is None:
                    return
                yield event
        finally:
            asyncio.run_coroutine_threadsafe(events.aclose(), loop).result(_STOP_SECONDS)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_STOP_SECONDS)
            loop.close()

    async def _events(self) -> AsyncGenerator[StreamEvent, None]:
        async with self._open_reader() as reader:
            job_id, turn_id = self.job_id, self.turn_id
            if turn_id is None:
                job_id, turn_id = await reader.turn_of(job_id) or (job_id, None)
            follower = reader.follow(job_id, turn_id, self.last_event_id)
            try:
                async for batch in follower.batches():
                    for event in batch:
                        self.last_event_id = str(event.id)
                        yield read_event(self.last_event_id, event.data)
            finally:
                follower.close()


async def _next(events: AsyncGenerator[StreamEvent, None]) -> StreamEvent | None:
    return await anext(events, None)
