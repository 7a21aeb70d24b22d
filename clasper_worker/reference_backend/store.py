"""The SQLite file: its tables, one connection, and transactions that are really serial.

One connection on one thread is enough here: statements take microseconds, SQLite has a single
writer anyway, and the same code then serves a file and ``:memory:``. Handing work to that thread
costs a third of what a thread pool does, and the event loop never waits for a disk or a lock.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from clasper_worker.errors import ConfigurationError
from clasper_worker.reference_backend.config import IN_MEMORY

T = TypeVar("T")

# Marks the file as ours ("CLSP"), so that another application's database is never written to.
_APPLICATION_ID = 0x434C5350
_SCHEMA_VERSION = 1
_BUSY_TIMEOUT_SECONDS = 10.0
_PRUNE_EVENTS_EVERY = 256

# `seq` is the order of arrival and what cursors point at; AUTOINCREMENT never uses one twice.
_SCHEMA = """
CREATE TABLE tasks (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL,
  title TEXT NOT NULL, description TEXT, status TEXT NOT NULL, metadata TEXT NOT NULL,
  created_at TEXT NOT NULL, updated_at TEXT NOT NULL
);
CREATE INDEX tasks_of_user ON tasks (user_id, seq);

CREATE TABLE messages (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL,
  task_id TEXT NOT NULL REFERENCES tasks (id), content TEXT NOT NULL, actor_type TEXT NOT NULL,
  actor_id TEXT, agent_role TEXT NOT NULL, attachments TEXT, created_at TEXT NOT NULL
);
CREATE INDEX messages_of_user ON messages (user_id, seq);
CREATE INDEX messages_of_task ON messages (user_id, task_id, seq);

CREATE TABLE documents (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL,
  task_id TEXT REFERENCES tasks (id), title TEXT NOT NULL, content TEXT NOT NULL,
  doc_type TEXT NOT NULL, created_at TEXT NOT NULL
);
CREATE INDEX documents_of_user ON documents (user_id, seq);
CREATE INDEX documents_of_task ON documents (user_id, task_id, seq);

CREATE TABLE notifications (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL,
  content TEXT NOT NULL, session_key TEXT NOT NULL, agent_role TEXT, task_id TEXT, task_title TEXT,
  created_at TEXT NOT NULL, delivered_at TEXT
);
CREATE INDEX notifications_of_user ON notifications (user_id, seq);
CREATE INDEX notifications_undelivered ON notifications (user_id, seq) WHERE delivered_at IS NULL;

CREATE TABLE tool_requests (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL,
  tool_name TEXT NOT NULL, arguments TEXT NOT NULL, reason TEXT, task_id TEXT, turn_id TEXT,
  session_key TEXT, agent_role TEXT NOT NULL, status TEXT NOT NULL, created_at TEXT NOT NULL,
  decided_at TEXT, decided_by TEXT, decision_note TEXT
);
CREATE INDEX tool_requests_of_user ON tool_requests (user_id, seq);

CREATE TABLE agents (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, agent_role TEXT NOT NULL,
  timezone TEXT, active_hours TEXT, UNIQUE (user_id, agent_role)
);

CREATE TABLE heartbeats (
  user_id TEXT NOT NULL, agent_role TEXT NOT NULL, last_at TEXT NOT NULL, total INTEGER NOT NULL,
  PRIMARY KEY (user_id, agent_role)
) WITHOUT ROWID;

CREATE TABLE standups (
  user_id TEXT NOT NULL, day TEXT NOT NULL, document_id TEXT NOT NULL, PRIMARY KEY (user_id, day)
) WITHOUT ROWID;

CREATE TABLE idempotency (
  user_id TEXT NOT NULL, key TEXT NOT NULL, fingerprint BLOB NOT NULL, status INTEGER NOT NULL,
  body TEXT NOT NULL, created_at TEXT NOT NULL, PRIMARY KEY (user_id, key)
) WITHOUT ROWID;

CREATE TABLE events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, type TEXT NOT NULL,
  data TEXT NOT NULL
);
CREATE INDEX events_of_user ON events (user_id, seq);
"""


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
        on_change: called after each stored transaction with the users that got events, on the
            store's thread.

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
        self._events_kept = events_kept
        self._on_change = on_change
        try:
            self._connection = _open(database)
        except sqlite3.Error as exc:
            raise ConfigurationError(
                f"The database {database} cannot be used: {exc}. Check the path and its "
                "permissions, or name another file.",
                {"variable": "database"},
            ) from exc
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reference-backend")
        # An app that nobody closes (in-process tests) still closes its file when it is collected.
        self._close = weakref.finalize(self, self._connection.close)

    def close(self) -> None:
        """Finish what was begun and close the file; a second time does nothing."""
        self._thread.shutdown()
        self._close()

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """What `query` finds; nobody writes through this store meanwhile."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, query, self._connection)

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Do `work` in a transaction: all of it is stored, or, if it raises, nothing.

        No other writer, in this process or another, comes in between.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._write, work)

    def _write(self, work: Callable[[Transaction], T]) -> T:
        self._connection.execute("BEGIN IMMEDIATE")
        transaction = Transaction(self._connection, self._events_kept)
        try:
            result = work(transaction)
            self._connection.execute("COMMIT")
        except BaseException:
            # SQLite has already rolled back by itself when the disk is full, for instance.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        if self._on_change is not None and transaction.changed_users:
            self._on_change(frozenset(transaction.changed_users))
        return result


def _open(database: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        database,
        timeout=_BUSY_TIMEOUT_SECONDS,
        isolation_level=None,  # transactions begin and end where this module says so
        check_same_thread=False,  # it is opened and closed elsewhere than it is used
        cached_statements=256,
    )
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        _prepare(connection, database)
        # With WAL, NORMAL survives a killed process; only a power cut may lose the last writes.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, database: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    if (application, version) != (_APPLICATION_ID, _SCHEMA_VERSION):
        raise ConfigurationError(
            f"The database {database} was not made by this version of the reference backend; "
            "name another file, or move that one away.",
            {"variable": "database"},
        )
