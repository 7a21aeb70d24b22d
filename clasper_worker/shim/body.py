"""The shim's request bodies: JSON objects of a bounded size."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request

from clasper_worker.large_json import has_too_many_values
from clasper_worker.shim.problems import ApiProblem

# UTF-8 takes up to four; JSON may escape a character as \\uXXXX, or a pair of them.
BYTES_PER_CHARACTER = 12


async def json_object(request: Request, max_characters: int) -> dict[str, Any]:
    """Read a request's body.

    Args:
        request: the request.
        max_characters: of text that the body may hold.

    Raises:
        ApiProblem: 400 (no JSON object), 413 (too large) or 415 (another content type).
    """
    # A browser may send other content types across origins without asking first.
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise ApiProblem(415, "content_type", "Send the body as application/json")
    content = await _bounded_body(request, max_characters * BYTES_PER_CHARACTER)
    if has_too_many_values(content):
        raise ApiProblem(413, "too_large", "The body has more values than are read at once")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise ApiProblem(400, "invalid_request", "The body is not valid JSON") from None
    if not isinstance(body, dict):
        raise ApiProblem(400, "invalid_request", "The body is not a JSON object")
    return body


async def _bounded_body(request: Request, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise ApiProblem(413, "too_large", f"The body has more than {max_bytes:,} bytes")
    return bytes(body)
