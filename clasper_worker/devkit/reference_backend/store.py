"""The backend's data: one connection, and transactions that are really serial.

One connection is enough here: statements take microseconds, SQLite has a single writer anyway, and
the same code then serves a file and ``:memory:``. The work is done on the event loop, as handing it
to a thread takes longer than doing it; only waiting, for a lock that another process holds on the
file, is left to the loop.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from clasper_worker.devkit.reference_backend.config import IN_MEMORY
from clasper_worker.devkit.reference_backend.database import open_database

T = TypeVar("T")

# How long to wait, in all and between attempts, for another process's lock on the file.
_LOCK_SECONDS = 30.0
_PAUSE_SECONDS = 0.01
_PRUNE_EVENTS_EVERY = 256


class Transaction:
    """One write transaction: everything in it is stored, or nothing is."""

    def __init__(self, connection: sqlite3.Connection, events_kept: int) -> None:
        self._connection = connection
        self._events_kept = events_kept
        self.changed_users: set[str] = set()

    def execute(self, sql: str, values: tuple[Any, ...] | Mapping[str, Any] = ()) -> sqlite3.Cursor:
        """Run one statement."""
        return self._connection.execute(sql, values)

    def emit(self, user_id: str, kind: str, action: str, item: Mapping[str, Any]) -> None:
        """Record an event of this tenant; its streams are woken once the transaction is stored."""
        data = json.dumps({"type": kind, "action": action, "item": item}, ensure_ascii=False)
        cursor = self.execute(
            "INSERT INTO events (user_id, type, data) VALUES (?, ?, ?)", (user_id, kind, data)
        )
        self.changed_users.add(user_id)
        newest = cursor.lastrowid or 0
        if newest % _PRUNE_EVENTS_EVERY == 0:
            self.execute("DELETE FROM events WHERE seq <= ?", (newest - self._events_kept,))


class Store:
    """The backend's data.

    Args:
        database: path of the file, or ``:memory:``.
        events_kept: how many of the newest events to keep.
        on_change: called after each stored transaction with the users that got events, by
            whoever wrote.

    Raises:
        ConfigurationError: the file cannot be opened, or it is not one of ours.
    """

    def __init__(
        self,
        database: str = IN_MEMORY,
        *,
        events_kept: int = 10_000,
        on_change: Callable[[frozenset[str]], None] | None = None,
    ) -> None:
        self._lock = threading.Lock()  # event loops of several threads may share a store
        self._events_kept = events_kept
        self._on_change = on_change
        self._connection = open_database(database)
        # An app that nobody closes (in-process tests) still closes its file when it is collected.
        self._close = weakref.finalize(self, self._connection.close)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        with self._lock:
            self._close()

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """What `query` finds; nobody writes through this store meanwhile."""
        with self._lock:
            return query(self._connection)

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Do `work` in a transaction: all of it is stored, or, if it raises, nothing.

        No other writer, in this process or another, comes in between.

        Raises:
            sqlite3.OperationalError: another process has kept the file locked for too long.
        """
        deadline = time.monotonic() + _LOCK_SECONDS
        transaction = Transaction(self._connection, self._events_kept)
        while True:
            with self._lock:
                if self._begin(may_be_locked=time.monotonic() < deadline):
                    result = self._commit(work, transaction)
                    break
            await asyncio.sleep(_PAUSE_SECONDS)
        if self._on_change is not None and transaction.changed_users:
            self._on_change(frozenset(transaction.changed_users))
        return result

    def _begin(self, *, may_be_locked: bool) -> bool:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as exc:
            if may_be_locked and exc.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                return False
            raise
        return True

    def _commit(self, work: Callable[[Transaction], T], transaction: Transaction) -> T:
        try:
            result = work(transaction)
            self._connection.execute("COMMIT")
        except BaseException:
            # SQLite has already rolled back by itself when the disk is full, for instance.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        return result
