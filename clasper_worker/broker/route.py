"""Whose a turn is and which session's, in a header, so that the scheduler need not read its body.

The scheduler does so inside Redis, where everybody waits meanwhile. A message without the header
is taken in all the same, only slower.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROUTE_HEADER = "clasper_route"

_ROUTED_TASKS = frozenset({"clasper.send", "clasper.heartbeat"})  # that have a session
_FIELDS = ("user_id", "session_key", "agent_role", "idempotency_key")


def route_header(task: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The header for a task with these arguments; empty where the scheduler needs none.

    Fields that are no text are left out, as the scheduler passes them over in the body.
    """
    if task not in _ROUTED_TASKS:
        return {}
    route: dict[str, Any] = {name: request[name] for name in _FIELDS if _is_text(request.get(name))}
    metadata = request.get("metadata")
    if isinstance(metadata, Mapping) and _is_text(metadata.get("busy")):
        route["metadata"] = {"busy": metadata["busy"]}
    return {ROUTE_HEADER: route}


def _is_text(value: Any) -> bool:
    """Whether it is text that any JSON parser takes: half a surrogate pair spoils the message."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)
