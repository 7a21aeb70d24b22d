"""A Celery task message as it lies in Redis, of either protocol, read for workers and searches."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from kombu.compression import decompress

from clasper_worker.config.names import HEARTBEAT_TASK, SEND_TASK
from clasper_worker.engine.queue.identifiers import clean_identifier
from clasper_worker.engine.queue.identity import turn_id_for

# Of a message of protocol 1, what protocol 2 has in its headers, and in the body's last part.
_HEADERS = ("task", "id", "eta", "expires", "retries", "timelimit", "root_id", "parent_id")
_FOLLOW_UPS = ("callbacks", "errbacks", "chord", "chain")


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """A task message.

    Attributes:
        job_id: the Celery task's id.
        task: the task's name.
        kwargs: the task's keyword arguments; None where the body cannot be read.
        headers: the message's.
        follow_ups: what Celery is to do at the task's end: callbacks, errbacks, chord, chain.
    """

    job_id: str
    task: str
    kwargs: Mapping[str, Any] | None = field(repr=False)
    headers: Mapping[str, Any] = field(default_factory=dict, repr=False)
    follow_ups: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def turn_id(self) -> str:
        """The turn that the message asks for; of another task, its own id."""
        route = Route.of(self.kwargs)
        if self.task != SEND_TASK or not route.user_id or not route.idempotency_key:
            return self.job_id
        return turn_id_for(route.user_id, route.idempotency_key, self.job_id)


def read_task_message(raw: bytes) -> TaskMessage | None:
    """Read a message as kombu's Redis transport stores it; None where it is not one of Celery's."""
    try:
        message = modern(json.loads(raw))
        headers = message["headers"]
        job_id, task = headers["id"], headers.get("task")
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None
    if not isinstance(job_id, str) or not job_id:
        return None
    kwargs, follow_ups = _arguments(message)
    return TaskMessage(job_id, str(task or ""), kwargs, headers, follow_ups)


def without_expiry(raw: bytes) -> str:
    """The message with no moment after which workers drop it; empty where it has none as it is."""
    try:
        message = json.loads(raw)
        if (message.get("headers") or {}).get("expires") is None:
            message = modern(message)  # in protocol 1 it is in the body
        expires = message["headers"].get("expires")
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return ""
    if expires is None:
        return ""
    message["headers"]["expires"] = None
    return json.dumps(message)


def modern(message: dict[str, Any]) -> dict[str, Any]:
    """The message in protocol 2: one of protocol 1 is turned into that, any other is as it was.

    Old Celery sends protocol 1, and so do clients in Go, JavaScript and PHP. Its body is an object
    with the task's name, id and arguments, and its headers are empty or missing.

    Raises:
        AttributeError, KeyError, RecursionError, TypeError, ValueError: it is of neither.
    """
    headers = message.get("headers") or {}
    if headers.get("id"):
        return message
    properties = message["properties"]
    text = message["body"]
    if properties.get("body_encoding") == "base64":
        text = base64.b64decode(text)
    body = json.loads(text)
    embedded = {name: body.get(name) for name in _FOLLOW_UPS}
    arguments = json.dumps([body.get("args") or [], body.get("kwargs") or {}, embedded])
    return {
        **message,
        "body": base64.b64encode(arguments.encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {
            **headers,
            **{name: body.get(name) for name in _HEADERS},
            "lang": "py",
            "id": body["id"],
            "retries": body.get("retries") or 0,
            "group": body.get("group", body.get("taskset")),
        },
        "properties": {**properties, "body_encoding": "base64"},
    }


def _arguments(message: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, Mapping[str, Any]]:
    """The task's keyword arguments, and what is to follow it."""
    try:
        body = message["body"]
        if message["properties"].get("body_encoding") == "base64":
            body = base64.b64decode(body)
        compression = message["headers"].get("compression")
        if compression:
            body = decompress(body, compression)
        _, kwargs, *rest = json.loads(body)
    except Exception:  # noqa: BLE001 - every compression has errors of its own
        return None, {}
    follow_ups = rest[0] if rest and isinstance(rest[0], Mapping) else {}
    return kwargs if isinstance(kwargs, Mapping) else None, follow_ups


ROUTE_HEADER = "clasper_route"
_ROUTED_TASKS = frozenset({SEND_TASK, HEARTBEAT_TASK})  # that have a session
_FIELDS = ("user_id", "session_key", "agent_role", "idempotency_key")


@dataclass(frozen=True, slots=True)
class Route:
    """Whose a turn is, as the scheduler's script reads it (``lua/reading.lua``).

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


def _name(value: object) -> str:
    return clean_identifier(value) if isinstance(value, str) else ""


def _is_text(value: Any) -> bool:
    """Whether it is text that any JSON parser takes: half a surrogate pair spoils the message."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)
