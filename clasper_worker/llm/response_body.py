"""The body of an answer with HTTP 200: a chat completion, or the error that some put there instead.

Gateways answer 200 before they have asked whoever has the model, and then have no other way to say
that it failed. What such an answer says is taken as if it were its status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clasper_worker.text.large_json import has_too_many_values
from clasper_worker.text.whole_text import json_of

MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Of one answer: reading more would hold the event loop, and no reply is as long."""

_UNKNOWN_STATUS = 502

# Names of errors, as OpenAI, Anthropic, Google and gateways before them give in ``code``, ``type``
# or ``status``, by the status that they go with elsewhere. The first that is part of the name.
_STATUS_OF_NAME = (
    ("context_length", 400),
    ("model_not_found", 404),
    ("insufficient_quota", 429),
    ("rate_limit", 429),
    ("too_many_requests", 429),
    ("resource_exhausted", 429),
    ("overloaded", 503),
    ("unavailable", 503),
    ("timeout", 504),
    ("deadline_exceeded", 504),
    ("invalid_api_key", 401),
    ("authentication", 401),
    ("unauthenticated", 401),
    ("unauthorized", 401),
    ("permission", 403),
    ("forbidden", 403),
    ("not_found", 404),
    ("too_large", 413),
    ("invalid_argument", 400),
    ("invalid_request", 400),
    ("bad_request", 400),
    ("unsupported", 400),
)
_STATUSES = range(400, 600)


class BrokenAnswerError(Exception):
    """An answer that is neither a chat completion nor an error; says what it is instead."""


class EmbeddedError(Exception):
    """An error inside an answer with HTTP 200.

    Attributes:
        status: the HTTP status that it stands for.
        body: the error as it came.
    """

    def __init__(self, status: int, body: object) -> None:
        self.status = status
        self.body = body
        super().__init__(f"status {status} inside HTTP 200")


def read_answer(body: bytes) -> dict[str, Any]:
    """The chat completion in a body; its first choice has a message.

    Raises:
        EmbeddedError: it is an error.
        BrokenAnswerError: it is nothing of the two.
    """
    if len(body) > MAX_ANSWER_BYTES or has_too_many_values(body):
        raise BrokenAnswerError(f"it has more than {MAX_ANSWER_BYTES:,} bytes, or too many values")
    if not body.strip():
        raise BrokenAnswerError("its body is empty")
    try:
        data = json_of(body)
    except (ValueError, RecursionError) as exc:
        raise BrokenAnswerError("its body is not JSON") from exc
    if isinstance(data, list) and data and isinstance(data[0], dict):
        data = data[0]  # as Google's compatible API wraps its errors
    if not isinstance(data, dict):
        raise BrokenAnswerError("its body is not a JSON object")
    refuse_error(data.get("error"))
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        refuse_instead_of_choices(data)
        raise BrokenAnswerError("it has no choices")
    refuse_choice(choice)
    if not isinstance(choice.get("message"), dict):
        raise BrokenAnswerError("its choice has no message")
    return data


def refuse_error(error: object) -> None:
    """Raise what an ``error`` stands for, where there is one."""
    if error:
        raise EmbeddedError(_status_of(error), error)


def refuse_instead_of_choices(data: Mapping[str, Any]) -> None:
    """Raise the error that an object without choices is, if it is one."""
    if data.get("object") == "error" or isinstance(data.get("message"), str):
        refuse_error(data)
    said = data.get("detail") or data.get("base_resp")
    if not (isinstance(said, Mapping) and said.get("status_code") == 0):  # which says: no error
        refuse_error(said)


def refuse_choice(choice: Mapping[str, Any]) -> None:
    """Raise the error that a choice has, or has ended in."""
    refuse_error(choice.get("error"))
    if choice.get("finish_reason") == "error":
        raise EmbeddedError(_UNKNOWN_STATUS, {"code": "finish_reason_error"})


def _status_of(error: object) -> int:
    """The status that an error names: as a number, by its name, or none that is known."""
    if isinstance(error, str):
        return _status_of_name(error) or _UNKNOWN_STATUS
    if not isinstance(error, Mapping):
        return _UNKNOWN_STATUS
    values = [error.get(name) for name in ("code", "status", "status_code", "type")]
    for value in values:
        number = int(value) if isinstance(value, str) and value.isdecimal() else value
        if isinstance(number, int) and number in _STATUSES:
            return number
    for value in values:
        if isinstance(value, str) and (status := _status_of_name(value)):
            return status
    return _UNKNOWN_STATUS


def _status_of_name(name: str) -> int | None:
    spelled = name[:200].lower().replace(" ", "_").replace("-", "_")
    return next((status for part, status in _STATUS_OF_NAME if part in spelled), None)
