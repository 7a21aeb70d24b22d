"""Which notification a turn answers, said over HTTP by a dispatcher that has no broker."""

from __future__ import annotations

import hmac
import json
from typing import Any

from fastapi import Request

from clasper_worker.config.settings import Settings
from clasper_worker.periodic.notification import INTERNAL_REFUSED, MARK_HEADER
from clasper_worker.shim.http import ApiProblem

_TOKEN_HEADER = "X-Internal-Token"  # noqa: S105 - a header's name
_MARK_CHARS = 8192


def mark_of(request: Request, settings: Settings) -> dict[str, Any] | None:
    """The mark of a request; None where it has none.

    A worker acknowledges what it names, whosever it is, so that it is taken with the internal
    token alone: the daemon key lets a caller ask for turns, and no more.

    Raises:
        ApiProblem: 403, it comes without that token; 400, it is no JSON object.
    """
    text = request.headers.get(MARK_HEADER)
    if text is None:
        return None
    token = settings.internal_api_token
    given = request.headers.get(_TOKEN_HEADER, "")
    if token is None or not hmac.compare_digest(given.encode(), token.get_secret_value().encode()):
        raise ApiProblem(
            403,
            INTERNAL_REFUSED,
            f"{MARK_HEADER} needs {_TOKEN_HEADER}: set INTERNAL_API_TOKEN to the same value for"
            " the shim and for the dispatcher",
        )
    try:
        mark = json.loads(text) if len(text) <= _MARK_CHARS else None
    except (ValueError, RecursionError):
        mark = None
    if not isinstance(mark, dict):
        raise ApiProblem(
            400, "invalid_request", f"{MARK_HEADER}: must be a JSON object of a dispatcher's"
        )
    return mark
