"""Keep people's text and secrets out of what Celery shows of a task.

Celery puts the ``repr`` of a task's arguments into worker events (Flower), logs and remote
control. It takes that ``repr`` from the message's headers, where a plain ``send_task`` has put the
whole message; so the worker replaces it (`clasper_worker.engine.pool.request`), and our own client
sends the redacted form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Arguments that say who and which, never what: shown as they are.
SHOWN = frozenset(
    {
        "user_id",
        "session_key",
        "agent_role",
        "task_id",
        "turn_id",
        "delivery_id",
        "notification_id",
        "event",
        "timezone",
        "stream",
        "keep_recent",
    }
)
_MAX_SHOWN_CHARS = 128


def redacted(arguments: Mapping[str, Any]) -> str:
    """The arguments for display: identifiers as they are, of anything else only type and size."""
    return "{" + ", ".join(f"{name!r}: {_shown(name, arguments[name])}" for name in arguments) + "}"


def _shown(name: str, value: Any) -> str:
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if name in SHOWN and isinstance(value, str):
        return repr(value[:_MAX_SHOWN_CHARS])
    if isinstance(value, str):
        return f"<{len(value)} characters>"
    if isinstance(value, Mapping):
        return f"<object of {len(value)}>"
    if isinstance(value, list | tuple):
        return f"<list of {len(value)}>"
    return f"<{type(value).__name__}>"
