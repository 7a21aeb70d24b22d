"""Follows turns: one blocking read a process for the streams of all, whoever listens to them.

A listener that goes away changes nothing. One that comes back, here or to another process, goes on
after the last event that it had.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

import redis.asyncio as redis
import structlog

from clasper_worker.engine.queue.place import Place, place_of
from clasper_worker.engine.queue.scheduler import Schedule
from clasper_worker.errors import StateUnavailableError
from clasper_worker.streams.feed import Feed, FollowedEvent, events_of
from clasper_worker.streams.ids import EventId, entry_order, read_id
from clasper_worker.streams.keys import job_key, run_key
from clasper_worker.streams.results import JobOutcome

log = structlog.get_logger(__name__)

COMMENT_SECONDS = 15.0
"""How often a listener is given a sign of life at least: it keeps proxies open."""
_BLOCK_SECONDS = 5.0
_ANSWER_SECONDS = 10.0  # beyond the block; then another connection is made
_ENTRIES_AT_ONCE = 200
_PAUSE_SECONDS = 0.002  # between two reads, and as much for each 50 turns
_RETRY_SECONDS = 0.5  # where Redis does not answer
_LINGER_SECONDS = 5.0  # that a feed is kept after its last listener
_RESULT_SECONDS = 30.0
_LAST_LOOKS = (0.01, 0.03, 0.06, 0.2)  # for what a worker reported just before the result was kept
_PLACE_SECONDS = 0.25  # between two looks for a job that no worker has taken in yet


class Results(Protocol):
    """Where a job's end is known."""

    async def wait(self, job_id: str, seconds: float) -> JobOutcome:
        """The job's outcome once it has ended, or as it stands when the time is up."""
        ...


class Places:
    """Where jobs stand that have not ended, as the broker's scheduler has it.

    Args:
        schedule: None where the broker is not Redis: then no job's place is known.
    """

    def __init__(self, schedule: Schedule | None) -> None:
        self._schedule = schedule

    async def find(self, job_id: str) -> Place | None:
        """A job's place; None where it is not known.

        Raises:
            StateUnavailableError: the broker does not answer.
        """
        if self._schedule is None:
            return None
        return await asyncio.to_thread(place_of, self._schedule, job_id)

    def close(self) -> None:
        """Close the connections."""
        if self._schedule is not None:
            self._schedule.close()


class StreamReader:
    """The streams that are followed in one event loop.

    Args:
        client: our own state's Redis.
        results: of jobs.
        places: of jobs that have not ended; closed with the reader.
        comment_seconds: see `COMMENT_SECONDS`.
    """

    def __init__(
        self,
        client: redis.Redis,
        results: Results,
        places: Places | None = None,
        *,
        comment_seconds: float = COMMENT_SECONDS,
    ) -> None:
        self._redis: Any = client  # redis-py types each answer as bytes or text
        self._results = results
        self._places = places or Places(None)
        self._comment_seconds = comment_seconds
        self._feeds: dict[str, Feed] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._wake_key = f"clasper:stream-wake:{uuid.uuid4().hex}"
        self._wake_at = "0-0"
        self._something = asyncio.Event()
        self._is_blocked = False
        self.is_stopped = False

    async def turn_of(self, job_id: str) -> tuple[str, str | None] | None:
        """The job to follow and its turn, by the id of either; None where neither is known here.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        feed = self._feeds.get(job_id)
        if feed is not None and feed.turn_id is not None:
            return job_id, feed.turn_id
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                pipe = self._redis.pipeline(transaction=False)
                turn, job = await pipe.get(job_key(job_id)).hget(run_key(job_id), "j").execute()
        except (redis.RedisError, OSError, TimeoutError) as exc:
            raise StateUnavailableError(
                f"Redis does not answer ({type(exc).__name__}): check CLASPER_REDIS_URL"
            ) from exc
        if turn is not None:
            return job_id, turn.decode()
        if job is not None:
            return job.decode(), job_id
        place = await self._places.find(job_id)
        return None if place is None else (job_id, place.turn_id)

    def follow(
        self, job_id: str, turn_id: str | None, last_event_id: str | None = None
    ) -> Follower:
        """Listen to a job's events.

        Args:
            job_id: the job's.
            turn_id: its turn's, where that is known.
            last_event_id: the id of the last event that the listener has; None: it has none.

        Raises:
            InvalidRequestError: there is no such event id.
        """
        cursor = read_id(last_event_id)
        feed = self._feeds.get(job_id)
        if feed is None:
            feed = self._feeds[job_id] = Feed(job_id, turn_id)
            self._watchers[job_id] = asyncio.create_task(self._watch(feed))
            if not self._tasks:
                self._tasks = [
                    asyncio.create_task(self._read()),
                    asyncio.create_task(self._comment()),
                ]
            self._look_again()
        feed.followers += 1
        return Follower(self, feed, cursor)

    async def page(self, feed: Feed, cursor: EventId) -> list[FollowedEvent]:
        """Events after that one from Redis; none where it has none."""
        while feed.key is not None and not self.is_stopped:
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    entries = await self._redis.xrange(
                        feed.key, cursor.entry, count=_ENTRIES_AT_ONCE
                    )
            except (redis.RedisError, OSError, TimeoutError):
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            found = [event for entry in entries for event in events_of(*entry)]
            return [event for event in found if event.id > cursor]
        return []

    def leave(self, feed: Feed) -> None:
        """A listener has gone."""
        feed.followers -= 1
        if not feed.followers:
            asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._drop, feed)

    def stop(self) -> None:
        """End all listeners' streams, so that they go on elsewhere."""
        self.is_stopped = True
        for feed in self._feeds.values():
            feed.wake()

    async def close(self) -> None:
        """Stop reading."""
        self.stop()
        tasks = [*self._tasks, *self._watchers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._watchers.clear()
        self._places.close()

    def _drop(self, feed: Feed) -> None:
        if feed.followers or self._feeds.get(feed.job_id) is not feed:
            return
        del self._feeds[feed.job_id]
        watcher = self._watchers.pop(feed.job_id, None)
        if watcher is not None:
            watcher.cancel()

    async def _comment(self) -> None:
        while True:
            await asyncio.sleep(self._comment_seconds)
            for feed in self._feeds.values():
                feed.tick()

    # The streams

    def _look_again(self) -> None:
        """Have the reading know of another stream."""
        self._something.set()
        if self._is_blocked:
            self._is_blocked = False
            self._tasks = [task for task in self._tasks if not task.done()]
            self._tasks.append(asyncio.create_task(self._wake()))

    async def _wake(self) -> None:
        with suppress(redis.RedisError, OSError, TimeoutError):  # it looks by itself soon
            async with asyncio.timeout(_ANSWER_SECONDS):
                pipe = self._redis.pipeline(transaction=False)
                pipe.xadd(self._wake_key, {"w": ""}, maxlen=1, approximate=False)
                await pipe.expire(self._wake_key, 60).execute()

    async def _read(self) -> None:
        while True:
            try:
                count = await self._read_once()
            except Exception as exc:  # noqa: BLE001 - all listeners wait for this task
                log.warning("streams.not_read", error=type(exc).__name__)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                await asyncio.sleep(_PAUSE_SECONDS * (1 + count // 50))

    async def _read_once(self) -> int:
        """Read what has come to any of the streams; returns of how many they are."""
        by_key: defaultdict[str, list[Feed]] = defaultdict(list)
        for feed in self._feeds.values():
            if feed.key is not None and not feed.is_whole:
                by_key[feed.key].append(feed)
        self._something.clear()
        if not by_key:
            await self._something.wait()
            return 0
        places = {key: min((one.position for one in feeds), key=entry_order)
                  for key, feeds in by_key.items()}  # fmt: skip
        self._is_blocked = True
        try:
            async with asyncio.timeout(_BLOCK_SECONDS + _ANSWER_SECONDS):
                answer = await self._redis.xread(
                    {**places, self._wake_key: self._wake_at},
                    count=_ENTRIES_AT_ONCE,
                    block=int(_BLOCK_SECONDS * 1000),
                )
        finally:
            self._is_blocked = False
        for name, entries in _streams(answer):
            if name == self._wake_key:
                self._wake_at = entries[-1][0].decode()
            for feed in by_key.get(name, ()):
                feed.absorb(entries)
        return len(by_key)

    # A job's end

    async def _watch(self, feed: Feed) -> None:
        """See to what the stream itself does not tell: that the job waits, and how it ended."""
        waiting = asyncio.create_task(self._wait_for_start(feed))
        try:
            while True:
                try:
                    outcome = await self._results.wait(feed.job_id, _RESULT_SECONDS)
                except StateUnavailableError:
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                if outcome.ended:
                    break
            await self._read_to_the_end(feed)
            feed.finish(outcome)
        except Exception as exc:  # noqa: BLE001 - its listeners must not wait for ever
            log.error("stream.watch_failed", job_id=feed.job_id, error=type(exc).__name__)  # noqa: TRY400 - its text may be private
            self._feeds.pop(feed.job_id, None)
            feed.fail()
        finally:
            waiting.cancel()

    async def _wait_for_start(self, feed: Feed) -> None:
        """Learn what a job waits for, and which turn is its own."""
        while not feed.has_begun:
            place = None
            with suppress(StateUnavailableError):  # its stream or its end may be read all the same
                place = await self._places.find(feed.job_id)
            if place is not None:
                if place.waits_for is not None:
                    feed.queue(place.waits_for, place.ahead)
                if feed.turn_id is None:
                    feed.turn_id = place.turn_id
                    self._look_again()
                return
            await asyncio.sleep(_PLACE_SECONDS)

    async def _read_to_the_end(self, feed: Feed) -> None:
        """Read what the stream has; wait a moment for what is on its way there."""
        if feed.turn_id is None:
            feed.turn_id = feed.job_id
        assert feed.key is not None  # noqa: S101 - the turn is known
        began = time.monotonic()
        for pause in (*_LAST_LOOKS, None):
            while True:
                try:
                    async with asyncio.timeout(_ANSWER_SECONDS):
                        pipe = self._redis.pipeline(transaction=False)
                        pipe.hget(run_key(feed.turn_id), "e")
                        pipe.xrange(feed.key, f"({feed.position}", count=_ENTRIES_AT_ONCE)
                        ended, entries = await pipe.execute()
                except (redis.RedisError, OSError, TimeoutError):
                    if time.monotonic() - began > _ANSWER_SECONDS:
                        return  # the end has all
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                feed.absorb(entries)
                if len(entries) < _ENTRIES_AT_ONCE:
                    break
            if ended or pause is None:
                return
            await asyncio.sleep(pause)


class Follower:
    """One listener of a job: an iterator over its events, from where it had come to.

    It ends with `done` or `error`, or without either when its process stops.
    """

    def __init__(self, reader: StreamReader, feed: Feed, cursor: EventId) -> None:
        self._reader = reader
        self._feed = feed
        self._cursor = cursor
        self._missed = False
        self._is_closed = False
        self._waits: asyncio.Future[None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the listener has had the last event."""
        return self._cursor.is_last

    async def batches(self) -> AsyncIterator[Sequence[FollowedEvent]]:
        """Events that have come, some together; an empty one as a sign of life."""
        ticks: int | None = None  # a listener that has come is answered at once
        try:
            while not self.is_over and not self._is_stopped:
                events = await self._next()
                if events:
                    self._cursor = events[-1].id
                    yield events
                elif ticks != self._feed.ticks:
                    ticks = self._feed.ticks
                    yield ()
                else:
                    self._waits = self._feed.next_change()
                    await self._waits
        finally:
            self.close()

    def close(self) -> None:
        """Stop listening; the job goes on."""
        if not self._is_closed:
            self._is_closed = True
            self._reader.leave(self._feed)
            if self._waits is not None and not self._waits.done():
                self._waits.set_result(None)

    @property
    def _is_stopped(self) -> bool:
        return self._is_closed or self._reader.is_stopped or self._feed.has_failed

    async def _next(self) -> Sequence[FollowedEvent]:
        events = self._feed.after(self._cursor, missed=self._missed)
        if events is not None:
            return events
        if page := await self._reader.page(self._feed, self._cursor):
            return page
        # Neither here nor there: the end says the last step's text anew.
        self._missed = True
        self._cursor = self._feed.gone
        return self._feed.after(self._cursor, missed=True) or ()


def _streams(answer: Any) -> list[tuple[str, list[Any]]]:
    """What XREAD answers, in either protocol: each stream with its entries."""
    if not answer:
        return []
    pairs = answer.items() if isinstance(answer, dict) else answer
    found = []
    for name, entries in pairs:
        # With RESP3 redis-py wraps each stream's entries once more.
        is_wrapped = bool(entries) and isinstance(entries[0], list)
        found.append((name.decode(), entries[0] if is_wrapped else entries))
    return found
