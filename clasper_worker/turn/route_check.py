"""Refuse a message whose header says that it is another task's than its arguments do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clasper_worker.engine.queue.message import ROUTE_HEADER, Route
from clasper_worker.turn.validation import invalid_request


def refuse_misrouted(header: object, arguments: Mapping[str, Any], *, is_turn: bool = True) -> None:
    """Fail a task whose header says that it is another's than its arguments do.

    Args:
        header: what the message's ``clasper_route`` holds; None where it has none.
        arguments: the task's.
        is_turn: see `Route.of`.

    Raises:
        InvalidRequestError: names the fields in which they differ.
    """
    if not isinstance(header, Mapping | list):
        return  # the scheduler passes it over, too
    said, meant = Route.of(header, is_turn=is_turn), Route.of(arguments, is_turn=is_turn)
    names = ("user_id", "session_key", "idempotency_key", "busy")
    differing = [name for name in names if getattr(said, name) != getattr(meant, name)]
    if differing:
        raise invalid_request(
            {
                "field": f"{ROUTE_HEADER}.{'metadata.busy' if name == 'busy' else name}",
                "problem": "the message's header says something else than its arguments",
                "fix": f"send the same there as in the arguments, or no header {ROUTE_HEADER}",
            }
            for name in differing
        )
