"""The SQLite file: its tables, and opening it so that a killed process loses nothing."""

from __future__ import annotations

import sqlite3

from clasper_worker.errors import ConfigurationError

# Marks the file as ours ("CLSP"), so that another application's database is never written to.
_APPLICATION_ID = 0x434C5350
_SCHEMA_VERSION = 2

# How long SQLite itself may wait for another process's lock: while opening, and afterwards, when
# the event loop stands still meanwhile.
_OPENING_SECONDS = 10.0
_BLOCKING_MILLISECONDS = 20

# `seq` is the order of arrival and what cursors point at; AUTOINCREMENT never uses one twice.
_SCHEMA = """
CREATE TABLE tasks (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL,
  title TEXT NOT NULL, description TEXT, status TEXT NOT NULL, metadata TEXT NOT NULL,
  created_at TEXT NOT NULL, updated_at TEXT NOT NULL
);
CREATE INDEX tasks_of_user ON tasks (user_id, seq);
CREATE INDEX tasks_by_status ON tasks (user_id, status, seq);

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
  tool TEXT NOT NULL, arguments TEXT NOT NULL, reason TEXT, task_id TEXT, turn_id TEXT,
  session_key TEXT, agent_role TEXT NOT NULL, status TEXT NOT NULL, created_at TEXT NOT NULL,
  decided_at TEXT, "by" TEXT, decision_reason TEXT,
  wait_id TEXT, arguments_hash TEXT, expires_at TEXT
);
CREATE INDEX tool_requests_of_user ON tool_requests (user_id, seq);
CREATE INDEX tool_requests_by_wait ON tool_requests (user_id, wait_id);

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

# From version 1, whose tool requests had other names.
_UPGRADE = """
ALTER TABLE tool_requests RENAME COLUMN tool_name TO tool;
ALTER TABLE tool_requests RENAME COLUMN decided_by TO "by";
ALTER TABLE tool_requests RENAME COLUMN decision_note TO decision_reason;
ALTER TABLE tool_requests ADD COLUMN wait_id TEXT;
ALTER TABLE tool_requests ADD COLUMN arguments_hash TEXT;
ALTER TABLE tool_requests ADD COLUMN expires_at TEXT;
CREATE INDEX tool_requests_by_wait ON tool_requests (user_id, wait_id);
"""


def open_database(database: str) -> sqlite3.Connection:
    """Open the file, and make its tables if it is new.

    Args:
        database: path of the file, or ``:memory:``.

    Raises:
        ConfigurationError: the file cannot be opened, or it is not one of ours.
    """
    try:
        return _open(database)
    except sqlite3.Error as exc:
        raise ConfigurationError(
            f"The database {database} cannot be used: {exc}. Check the path and its "
            "permissions, or name another file.",
            {"variable": "database"},
        ) from exc


def _open(database: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        database,
        timeout=_OPENING_SECONDS,
        isolation_level=None,  # transactions begin and end where this module says so
        check_same_thread=False,  # the store's lock serialises the threads
        cached_statements=256,
    )
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        _prepare(connection, database)
        # With WAL, NORMAL survives a killed process; only a power cut may lose the last writes.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA busy_timeout = {_BLOCKING_MILLISECONDS}")
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
        if (application, version) == (_APPLICATION_ID, 1):
            for statement in _UPGRADE.split(";"):
                connection.execute(statement)
            version = _SCHEMA_VERSION
            connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    if (application, version) != (_APPLICATION_ID, _SCHEMA_VERSION):
        raise ConfigurationError(
            f"The database {database} was not made by this version of the reference backend; "
            "name another file, or move that one away.",
            {"variable": "database"},
        )
