"""A Celery task message as it lies in Redis, read for people and for searches."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kombu.compression import decompress

from clasper_worker.turn.identity import turn_id_for


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """A task message.

    Attributes:
        job_id: the Celery task's id.
        task: the task's name.
        kwargs: the task's keyword arguments; None where the body cannot be read.
    """

    job_id: str
    task: str
    kwargs: Mapping[str, Any] | None = field(repr=False)

    @property
    def turn_id(self) -> str:
        """The turn that the message asks for; of another task, its own id."""
        kwargs = self.kwargs or {}
        user, key = _text(kwargs.get("user_id")), _text(kwargs.get("idempotency_key"))
        if self.task != "clasper.send" or not user or not key:
            return self.job_id
        return turn_id_for(user, key, self.job_id)


def read_task_message(raw: bytes) -> TaskMessage | None:
    """Read a message as kombu's Redis transport stores it; None where it is not one of Celery's."""
    try:
        message = json.loads(raw)
        headers = message["headers"]
        job_id, task = headers["id"], headers.get("task")
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None
    if not isinstance(job_id, str) or not job_id:
        return None
    return TaskMessage(job_id, str(task or ""), _kwargs(message))


def without_expiry(raw: bytes) -> str:
    """The message with no moment after which workers drop it; empty where it has none as it is."""
    try:
        message = json.loads(raw)
        expires = message["headers"].get("expires")
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return ""
    if expires is None:
        return ""
    message["headers"]["expires"] = None
    return json.dumps(message)


def _kwargs(message: Mapping[str, Any]) -> Mapping[str, Any] | None:
    try:
        body = message["body"]
        if message["properties"].get("body_encoding") == "base64":
            body = base64.b64decode(body)
        compression = message["headers"].get("compression")
        if compression:
            body = decompress(body, compression)
        _, kwargs, *_ = json.loads(body)
    except Exception:  # noqa: BLE001 - every compression has errors of its own
        return None
    return kwargs if isinstance(kwargs, Mapping) else None


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
