"""Server-sent events of one tenant, resumable by ``Last-Event-ID`` (WHATWG HTML, section 9.2).

Events are rows of a bounded table, written in the transaction of what they tell of. A stream reads
its tenant's rows after the last one it sent, and sleeps until a write wakes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import anyio
from sse_starlette import ServerSentEvent

from clasper_worker.devkit.reference_backend.errors import invalid_field
from clasper_worker.devkit.reference_backend.store import Store

_BATCH = 200


class Wakeups:
    """Wakes the event streams of a tenant, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sleepers: defaultdict[str, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = (
            defaultdict(set)
        )

    @contextlib.contextmanager
    def subscribe(self, user_id: str) -> Iterator[asyncio.Event]:
        """An event, of the running loop, that is set whenever this tenant has news."""
        sleeper = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._sleepers[user_id].add(sleeper)
        try:
            yield sleeper[1]
        finally:
            with self._lock:
                self._sleepers[user_id].discard(sleeper)
                if not self._sleepers[user_id]:
                    del self._sleepers[user_id]

    def wake(self, user_ids: frozenset[str]) -> None:
        """Wake every stream of these tenants."""
        with self._lock:
            sleepers = [pair for user_id in user_ids for pair in self._sleepers.get(user_id, ())]
        for loop, event in sleepers:
            with contextlib.suppress(RuntimeError):  # its loop has ended
                loop.call_soon_threadsafe(event.set)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a stream stands.

    Attributes:
        seq: the last event that the client has.
        gap: whether events after it may be gone, so that the client must read the lists anew.
    """

    seq: int
    gap: bool


def find_position(store: Store, last_event_id: str | None) -> Position:
    """Where a stream begins: after the client's last event, or now.

    Args:
        store: where the events are.
        last_event_id: what the client sent; None starts with what happens from now on.

    Raises:
        ApiError: 400; `last_event_id` is not one that a stream has sent.
    """
    oldest, newest = store.read(_bounds)
    if last_event_id is None:
        return Position(newest, gap=False)
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 20):
        raise invalid_field(
            "Last-Event-ID",
            "is not an event's id",
            "Send the id of the last event that came, or leave the header out.",
        )
    seq = int(last_event_id)
    if seq > newest:  # an event of another database
        return Position(newest, gap=True)
    return Position(seq, gap=oldest is not None and seq < oldest - 1)


def _bounds(connection: sqlite3.Connection) -> tuple[int | None, int]:
    oldest = connection.execute("SELECT min(seq) FROM events").fetchone()[0]
    # AUTOINCREMENT's own counter, which has no row before the first event.
    newest = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return oldest, newest[0] if newest else 0


def _events_after(user_id: str, seq: int) -> Callable[[sqlite3.Connection], list[sqlite3.Row]]:
    return lambda connection: connection.execute(
        "SELECT seq, type, data FROM events WHERE user_id = ? AND seq > ? ORDER BY seq LIMIT ?",
        (user_id, seq, _BATCH),
    ).fetchall()


async def stream(
    store: Store,
    wakeups: Wakeups,
    user_id: str,
    position: Position,
    *,
    seconds: float | None,
    stop: anyio.Event,
) -> AsyncIterator[ServerSentEvent]:
    """A tenant's events, as they happen.

    The first one is ``ready``, with the id to resume from even if nothing else comes, or
    ``reset`` where events between may have been missed.

    Args:
        store: where the events are.
        wakeups: tells when there are new ones.
        user_id: the tenant.
        position: where to begin.
        seconds: how long the stream may live (its token's life); None for ever.
        stop: set when the server shuts down; the stream then ends in good order.
    """
    ends_at = None if seconds is None else time.monotonic() + seconds
    seq = position.seq
    with wakeups.subscribe(user_id) as news:
        first = "reset" if position.gap else "ready"
        yield ServerSentEvent(event=first, id=str(seq), data=json.dumps({"type": first}))
        while not stop.is_set():
            left = None if ends_at is None else ends_at - time.monotonic()
            if left is not None and left <= 0:
                return
            news.clear()
            rows = store.read(_events_after(user_id, seq))
            for row in rows:
                seq = row["seq"]
                yield ServerSentEvent(event=row["type"], id=str(seq), data=row["data"])
            if not rows:
                await _first_of(news, stop, seconds=left)


async def _first_of(*events: asyncio.Event | anyio.Event, seconds: float | None) -> None:
    """Wait until one of the events is set, or for so long; None for ever."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
