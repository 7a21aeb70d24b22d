"""Rows as the JSON objects that the API shows, one tenant at a time, page by page.

Pages follow the order of arrival, oldest first: what is added while somebody pages through comes
after everything already seen, so that each item is seen exactly once.
"""

from __future__ import annotations

import base64
import binascii
import json
import sqlite3
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from clasper_worker.devkit.reference_backend.errors import ApiError, invalid_field
from clasper_worker.devkit.reference_backend.store import Transaction

JsonItem = dict[str, Any]

_JSON_COLUMNS = frozenset({"metadata", "attachments", "arguments"})
_MAX_SEQ = 2**63 - 1


def _quoted(column: str) -> str:
    """A column's name as SQL takes it where it is a keyword, too."""
    return f'"{column}"'


@dataclass(frozen=True, slots=True)
class Table:
    """A table of things that belong to a tenant.

    Attributes:
        name: in the database, and in cursors.
        noun: one of them, in error messages and events.
        columns: those that the API shows, in that order.
    """

    name: str
    noun: str
    columns: tuple[str, ...]

    @property
    def selection(self) -> str:
        """`columns` for a SELECT."""
        return ", ".join(map(_quoted, self.columns))


TASKS = Table(
    "tasks",
    "task",
    ("id", "title", "status", "description", "metadata", "created_at", "updated_at"),
)
MESSAGES = Table(
    "messages",
    "message",
    (
        "id",
        "task_id",
        "content",
        "actor_type",
        "actor_id",
        "agent_role",
        "attachments",
        "created_at",
    ),
)
DOCUMENTS = Table(
    "documents", "document", ("id", "title", "doc_type", "task_id", "content", "created_at")
)
NOTIFICATIONS = Table(
    "notifications",
    "notification",
    (
        "id",
        "content",
        "session_key",
        "agent_role",
        "task_id",
        "task_title",
        "created_at",
        "delivered_at",
    ),
)
TOOL_REQUESTS = Table(
    "tool_requests",
    "tool_request",
    (
        "id",
        "tool",
        "arguments",
        "arguments_hash",
        "status",
        "wait_id",
        "turn_id",
        "task_id",
        "agent_role",
        "session_key",
        "reason",
        "expires_at",
        "created_at",
        "decided_at",
        "by",
        "decision_reason",
    ),
)
AGENTS = Table("agents", "agent", ("user_id", "agent_role", "timezone", "active_hours"))


def now() -> str:
    """This moment in UTC, ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat()


def new_id() -> str:
    """An id that is not used yet."""
    return str(uuid.uuid4())


def to_item(row: sqlite3.Row) -> JsonItem:
    """A row as its JSON object; what is not set is left out."""
    return {
        name: json.loads(value) if name in _JSON_COLUMNS else value
        for name, value in zip(row.keys(), row, strict=True)
        if value is not None
    }


def _stored(column: str, value: Any) -> Any:
    return json.dumps(value) if column in _JSON_COLUMNS else value


def insert(transaction: Transaction, table: Table, user_id: str, values: JsonItem) -> JsonItem:
    """Store one item of this tenant and record its event.

    Returns:
        The item as the API shows it.
    """
    item = {"id": new_id(), "created_at": now(), **values}
    columns = {name: _stored(name, value) for name, value in item.items() if value is not None}
    names, slots = ", ".join(map(_quoted, columns)), ", ".join("?" * len(columns))
    transaction.execute(
        # S608: names come from this package's code alone.
        f"INSERT INTO {table.name} (user_id, {names}) VALUES (?, {slots})",  # noqa: S608
        (user_id, *columns.values()),
    )
    shown = {name: item[name] for name in table.columns if item.get(name) is not None}
    transaction.emit(user_id, table.noun, "created", shown)
    return shown


def update(
    transaction: Transaction, table: Table, user_id: str, item_id: str, values: Mapping[str, Any]
) -> JsonItem:
    """Change one item of this tenant and record its event.

    Returns:
        The whole item, as it is now.

    Raises:
        ApiError: 404; this tenant has no such item.
    """
    assignments = ", ".join(f"{_quoted(name)} = ?" for name in values)
    transaction.execute(
        # S608: names come from this package's code alone.
        f"UPDATE {table.name} SET {assignments} WHERE id = ? AND user_id = ?",  # noqa: S608
        (*(_stored(name, value) for name, value in values.items()), item_id, user_id),
    )
    item = get(transaction, table, user_id, item_id)
    transaction.emit(user_id, table.noun, "updated", item)
    return item


def get(
    source: sqlite3.Connection | Transaction, table: Table, user_id: str, item_id: str
) -> JsonItem:
    """One item of this tenant.

    Raises:
        ApiError: 404; this tenant has no such item (another may have).
    """
    row = source.execute(
        # S608: names come from this package's code alone.
        f"SELECT {table.selection} FROM {table.name} WHERE id = ? AND user_id = ?",  # noqa: S608
        (item_id, user_id),
    ).fetchone()
    if row is None:
        noun = table.noun.replace("_", " ")
        raise ApiError(404, f"There is no {noun} with this id for this user.")
    return to_item(row)


def page(
    connection: sqlite3.Connection,
    table: Table,
    filters: Mapping[str, str | None],
    limit: int,
    cursor: str | None,
) -> JsonItem:
    """One page, oldest first: ``{"items", "next_cursor"?}``.

    Args:
        connection: what to read from.
        table: what to list.
        filters: column → value that it must have; None for any.
        limit: how many items at most, 1 or more.
        cursor: a ``next_cursor`` from before; None for the first page.

    Raises:
        ApiError: 400; the cursor is not one of this list's.
    """
    wanted = {name: value for name, value in filters.items() if value is not None}
    where = "".join(f" AND {_quoted(name)} = ?" for name in wanted)
    rows = connection.execute(
        # S608: names come from this package's code alone.
        f"SELECT seq, {table.selection} FROM {table.name} "  # noqa: S608
        f"WHERE seq > ?{where} ORDER BY seq LIMIT ?",
        # One more than asked for tells whether there is another page.
        (read_cursor(table, cursor), *wanted.values(), limit + 1),
    ).fetchall()
    items = [to_item(row) for row in rows[:limit]]
    for item in items:
        del item["seq"]
    answer: JsonItem = {"items": items}
    if len(rows) > limit:
        answer["next_cursor"] = write_cursor(table, rows[limit - 1]["seq"])
    return answer


def write_cursor(table: Table, seq: int) -> str:
    """An opaque cursor that continues after `seq` in the list of `table`."""
    return base64.urlsafe_b64encode(f"{table.name}:{seq}".encode()).decode().rstrip("=")


def read_cursor(table: Table, cursor: str | None) -> int:
    """Where a cursor continues; 0 without one.

    Raises:
        ApiError: 400; the cursor is not one of this list's.
    """
    if cursor is None:
        return 0
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        name, seq = base64.b64decode(padded, altchars=b"-_", validate=True).decode().split(":")
        position = int(seq)
    except (ValueError, binascii.Error):
        name, position = "", -1
    if name != table.name or not 0 <= position <= _MAX_SEQ:
        raise invalid_field(
            "cursor",
            "is not a cursor of this list",
            "Send the next_cursor of the page before, unchanged, or none for the first page.",
        )
    return position
