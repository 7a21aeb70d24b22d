"""Whose a turn is and which session's, in a header, so that the scheduler need not read its body.

The scheduler does so inside Redis, where everybody waits meanwhile. A message without the header
is taken in all the same, only slower. One whose header says something else than its body is refused
before it does anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from clasper_worker.identifiers import clean_identifier
from clasper_worker.turn.request_problems import invalid_request

ROUTE_HEADER = "clasper_route"

_ROUTED_TASKS = frozenset({"clasper.send", "clasper.heartbeat"})  # that have a session
_FIELDS = ("user_id", "session_key", "agent_role", "idempotency_key")


@dataclass(frozen=True, slots=True)
class Route:
    """Whose a turn is, as the scheduler's script reads it (``scheduler/reading.lua``).

    Attributes:
        user_id: the user; empty where the request names none, and then so is all else.
        session_key: the session's.
        idempotency_key: empty where the request has none.
        busy: the policy that it asks for; empty where it asks for none.
    """

    user_id: str = ""
    session_key: str = ""
    idempotency_key: str = ""
    busy: str = ""

    @classmethod
    def of(cls, request: object, *, is_turn: bool = True) -> Self:
        """Read it from a request's fields, or from those of the header.

        Args:
            request: a mapping of the fields; of anything else there is no route.
            is_turn: whether it is one, or a heartbeat, which has its user and role alone.
        """
        fields = request if isinstance(request, Mapping) else {}
        user = _name(fields.get("user_id"))
        if not user:
            return cls()
        role = _name(fields.get("agent_role")) or "default"
        session = f"user:{user}:{role}"
        if not is_turn:
            return cls(user, session)
        session = _name(fields.get("session_key")) or session
        metadata = fields.get("metadata")
        busy = metadata.get("busy") if isinstance(metadata, Mapping) else None
        key = _name(fields.get("idempotency_key"))
        return cls(user, session, key, busy if isinstance(busy, str) else "")


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


def _name(value: object) -> str:
    return clean_identifier(value) if isinstance(value, str) else ""


def _is_text(value: Any) -> bool:
    """Whether it is text that any JSON parser takes: half a surrogate pair spoils the message."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)
