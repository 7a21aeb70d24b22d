"""What the page shows of a user, read in one go."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import Connection

from clasper_worker.devkit.reference_backend.errors import ApiError
from clasper_worker.devkit.reference_backend.records import (
    DOCUMENTS,
    MESSAGES,
    NOTIFICATIONS,
    TASKS,
    TOOL_REQUESTS,
    JsonItem,
    Table,
    get,
    to_item,
)
from clasper_worker.prompt.roles import validate_role

DEFAULT_ROLE = "default"
_SHOWN = 100
_USERS_SHOWN = 50


@dataclass(frozen=True, slots=True)
class View:
    """One user's data, and which thread is open.

    Attributes:
        user_id: the tenant.
        role: of the agent that is written to.
        roles: that can be chosen.
        users: whom the backend has data of.
        task: the open thread; None for a new one.
        messages: of the open thread, the newest, oldest first.
        tasks: the newest first, as are the others.
    """

    user_id: str
    role: str
    roles: tuple[str, ...]
    users: tuple[str, ...]
    task: JsonItem | None
    messages: list[JsonItem] = field(repr=False)
    tasks: list[JsonItem] = field(repr=False)
    documents: list[JsonItem] = field(repr=False)
    notifications: list[JsonItem] = field(repr=False)
    tool_requests: list[JsonItem] = field(repr=False)


def read_view(
    connection: Connection, user_id: str, task_id: str | None, role: str | None, souls: list[str]
) -> View:
    """What the page shows.

    Args:
        connection: what to read from.
        user_id: the tenant.
        task_id: the thread that is open; where this tenant has none of that id, a new one is.
        role: of the agent; None for whoever answered last in the thread.
        souls: the roles that the workspace describes.
    """
    task = None
    if task_id is not None:
        try:
            task = get(connection, TASKS, user_id, task_id)
        except ApiError:
            task = None
    messages = _newest(connection, MESSAGES, user_id, task["id"])[::-1] if task else []
    answered = [item["agent_role"] for item in messages if item["actor_type"] == "agent"]
    role = role or (answered[-1] if answered else DEFAULT_ROLE)
    users = connection.execute(
        "SELECT user_id FROM tasks UNION SELECT user_id FROM notifications"
        " UNION SELECT user_id FROM documents ORDER BY user_id LIMIT ?",
        (_USERS_SHOWN,),
    )
    return View(
        user_id=user_id,
        role=role,
        roles=tuple(dict.fromkeys([DEFAULT_ROLE, *souls, role])),
        users=tuple(name for (name,) in users),
        task=task,
        messages=messages,
        tasks=_newest(connection, TASKS, user_id),
        documents=_newest(connection, DOCUMENTS, user_id),
        notifications=_newest(connection, NOTIFICATIONS, user_id),
        tool_requests=_newest(connection, TOOL_REQUESTS, user_id),
    )


def roles_of(workspace: Path | None) -> list[str]:
    """The roles that a workspace has a soul for."""
    if workspace is None:
        return []
    found = []
    for path in sorted((workspace / "souls").glob("*.md"))[:_SHOWN]:
        try:
            found.append(validate_role(path.stem))
        except ValueError:
            continue  # a note beside the souls
    return found


def _newest(
    connection: Connection, table: Table, user_id: str, task_id: str | None = None
) -> list[JsonItem]:
    of_task = "" if task_id is None else " AND task_id = ?"
    rows = connection.execute(
        # S608: names come from this package's code alone.
        f"SELECT {table.selection} FROM {table.name} WHERE user_id = ?{of_task} "  # noqa: S608
        "ORDER BY seq DESC LIMIT ?",
        (user_id, *(() if task_id is None else (task_id,)), _SHOWN),
    )
    return [to_item(row) for row in rows]
