"""One job's events in a process that follows it, shared by all who do.

The newest of them are kept here, for a bounded number of bytes; who is further behind reads from
Redis. What ends the stream follows from the job's stored result. Where the chunks of the last step
are not exactly the response, since Redis lost some or another run's reply counts, the end says the
step anew: `retry`, `chunk`, then `done`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Any

from clasper_worker.streams.ids import (
    CHUNK,
    LAST,
    NOTHING,
    QUEUED,
    RETRY,
    EventId,
    end_id,
    entry_order,
)
from clasper_worker.streams.keys import stream_key
from clasper_worker.streams.results import JobOutcome

KEPT_BYTES = 256 * 1024
"""What a process keeps of one turn's events."""

_BREAKS = str.maketrans({mark: f"\\u{ord(mark):04x}" for mark in "\x85\u2028\u2029"})
"""Escapes of what many clients take for a line's end though the protocol does not."""

Entry = tuple[bytes, dict[bytes, bytes]]
"""An entry of a Redis stream, as redis-py has it."""


@dataclass(frozen=True)
class FollowedEvent:
    """An event and its id."""

    id: EventId
    data: dict[str, Any] = field(repr=False)

    @cached_property
    def sse(self) -> bytes:
        """As server-sent event."""
        try:
            text = json.dumps(self.data, ensure_ascii=False).translate(_BREAKS).encode()
        except UnicodeEncodeError:  # half of a surrogate pair
            text = json.dumps(self.data).encode()
        return b"id: %b\r\nevent: %b\r\ndata: %b\r\n\r\n" % (
            str(self.id).encode(),
            str(self.data["type"]).encode(),
            text,
        )


class _Texts:
    """What a consumer that drops what is void has of the steps' texts: their digests."""

    def __init__(self) -> None:
        self.last_step = 0
        self._is_streamed = False
        self._digests: dict[int, Any] = {}

    def add(self, data: dict[str, Any]) -> None:
        kind, step = data["type"], data.get("step", 0)
        if kind == "chunk":
            digest = self._digests.setdefault(step, hashlib.blake2b(usedforsecurity=False))
            digest.update(_bytes(data["data"]))
        elif kind == "retry":
            self._digests.pop(step, None)
        elif kind == "start":
            self._is_streamed = bool(data.get("streamed"))
            self.last_step = self.last_step if data.get("resumed") else 0
        self.last_step = max(self.last_step, step)

    def differ_from(self, response: str) -> bool:
        """Whether the last step has another text, or none though the turn is streamed."""
        if not self._digests:
            return self._is_streamed
        step = max(self._digests)
        wanted = hashlib.blake2b(_bytes(response), usedforsecurity=False).digest()
        is_last: bool = step == self.last_step
        return not is_last or self._digests[step].digest() != wanted


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


class Feed:
    """A job's events as far as this process has them.

    Args:
        job_id: the job's.
        turn_id: the turn's that it asks for; None while that is not known.
        kept_bytes: of its events.

    Attributes:
        position: the last entry of the turn's stream that was read.
        is_whole: whether all is here: the stream was read to its end, and the job has ended.
        followers: how many there are.
        gone: the last event that is not kept any more.
        ticks: how often the followers were to give a sign of life.
        has_failed: whether it stopped without the job's end, of a fault.
    """

    def __init__(self, job_id: str, turn_id: str | None, *, kept_bytes: int = KEPT_BYTES) -> None:
        self.job_id = job_id
        self.turn_id = turn_id
        self.position = "0-0"
        self.followers = 0
        self.gone = NOTHING
        self.has_failed = False
        self.ticks = 0
        self._kept_bytes = kept_bytes
        self._events: list[FollowedEvent] = []
        self._bytes = 0
        self._texts = _Texts()
        self._outcome: JobOutcome | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def key(self) -> str | None:
        """The turn's stream; None while it is not known which."""
        return None if self.turn_id is None else stream_key(self.turn_id)

    @property
    def is_whole(self) -> bool:
        """See the class."""
        return self._outcome is not None

    @property
    def has_begun(self) -> bool:
        """Whether any entry of the turn's stream was read."""
        return self.position != "0-0"

    def queue(self, reason: str, ahead: int | None) -> None:
        """Say that the job waits, before anything else is said."""
        if not self._events and not self.has_begun:
            data = {"type": "queued", "job_id": self.job_id, "reason": reason, "ahead": ahead}
            self._keep([FollowedEvent(QUEUED, data)])

    def absorb(self, entries: Iterable[Entry]) -> None:
        """Take entries of the stream, in their order; those that were read before are left out."""
        found: list[FollowedEvent] = []
        seen = entry_order(self.position)
        for name, fields in entries:
            entry_id = entry_order(name.decode())
            if entry_id <= seen:
                continue
            seen, self.position = entry_id, name.decode()
            found += events_of(name, fields)
        for event in found:
            self._texts.add(event.data)
        if found:
            self._keep(found)

    def finish(self, outcome: JobOutcome) -> None:
        """The job has ended so, and the stream was read to its end."""
        self._outcome = outcome
        self.wake()

    def tick(self) -> None:
        """Have the followers give a sign of life."""
        self.ticks += 1
        self.wake()

    def fail(self) -> None:
        """Have the followers come again."""
        self.has_failed = True
        self.wake()

    def after(self, cursor: EventId, *, missed: bool = False) -> Sequence[FollowedEvent] | None:
        """The events after that one; None where some of them are not kept here any more.

        Args:
            cursor: the last event that a follower has.
            missed: whether events before it were lost for that follower.
        """
        if cursor < self.gone:
            return None
        found: list[FollowedEvent] = []
        if not cursor.is_end:
            found = self._events[bisect_right(self._events, cursor, key=attrgetter("id")) :]
        if self._outcome is not None:
            found = [*found, *self._end(cursor, missed=missed)]
        return found

    def next_change(self) -> asyncio.Future[None]:
        """Is done when there may be more, or `wake` is called."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        waiter.add_done_callback(self._waiting.discard)
        return waiter

    def wake(self) -> None:
        """Have all followers look."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    def _keep(self, events: Sequence[FollowedEvent]) -> None:
        self._events += events
        self._bytes += sum(len(event.sse) for event in events)
        gone = 0
        while self._bytes > self._kept_bytes and gone < len(self._events) - 1:
            self._bytes -= len(self._events[gone].sse)
            gone += 1
        if gone:
            self.gone = self._events[gone - 1].id
            del self._events[:gone]
        self.wake()

    def _end(self, cursor: EventId, *, missed: bool) -> list[FollowedEvent]:
        outcome, step = self._outcome, self._texts.last_step
        assert outcome is not None  # noqa: S101 - asked only then
        if cursor.is_end:
            step = cursor.number
        names = {"job_id": self.job_id, "turn_id": self.turn_id or self.job_id}
        if outcome.error is not None:
            last = {"type": "error", **outcome.error, **names}
        else:
            last = {**(outcome.result or {}), "type": "done"}
        response = (outcome.result or {}).get("response")
        events = [FollowedEvent(end_id(step, LAST), last)]
        is_begun = cursor.is_end and cursor.place < LAST  # another process found that it differs
        if isinstance(response, str) and (
            is_begun or missed or (not cursor.is_end and self._texts.differ_from(response))
        ):
            step = max(step, 1)
            events = [
                FollowedEvent(end_id(step, RETRY), {"type": "retry", "step": step}),
                FollowedEvent(
                    end_id(step, CHUNK), {"type": "chunk", "data": response, "step": step}
                ),
                FollowedEvent(end_id(step, LAST), last),
            ]
        return [event for event in events if event.id > cursor]


def events_of(name: bytes, fields: dict[bytes, bytes]) -> list[FollowedEvent]:
    """The events of an entry."""
    milliseconds, number = entry_order(name.decode())
    try:
        events = json.loads(fields.get(b"e", b"[]"))
    except ValueError:
        return []
    return [
        FollowedEvent(EventId(milliseconds, number, index), data)
        for index, data in enumerate(events)
    ]
