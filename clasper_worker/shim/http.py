"""Errors as the shim answers them: ``{"error", "code", "details"}``, as in the contract."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from clasper_worker.errors import (
    ClasperError,
    ConfigurationError,
    InvalidRequestError,
    StateUnavailableError,
)
from clasper_worker.shim.schemas import Problem
from clasper_worker.text.bounds import shortened, told_problems
from clasper_worker.text.large_json import has_too_many_values
from clasper_worker.text.whole_text import whole_json

_STATUS: dict[type[ClasperError], int] = {
    InvalidRequestError: 400,
    ConfigurationError: 500,
    StateUnavailableError: 503,
}
ANY_ERROR: dict[int | str, dict[str, Any]] = {
    "default": {"model": Problem, "description": "An error"}
}
"""For ``responses`` of all routes; without it FastAPI describes a 422 that is never answered."""


class ApiProblem(Exception):  # noqa: N818 - an answer, not a fault
    """An answer with an error body."""

    def __init__(
        self,
        status: int,
        code: str,
        error: str,
        details: dict[str, Any] | None = None,
        *,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.headers = headers
        self.body = {"error": error, "code": code, "details": details or {}}


def _answer_problem(_: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, ApiProblem)  # noqa: S101 - registered for this type
    return JSONResponse(exc.body, status_code=exc.status, headers=exc.headers)


def _answer_ours(_: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, ClasperError)  # noqa: S101 - registered for this type
    status = next((code for kind, code in _STATUS.items() if isinstance(exc, kind)), 502)
    body = {"error": str(exc), "code": exc.code, "details": exc.details}
    return JSONResponse(body, status_code=status)


def _answer_http(_: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)  # noqa: S101 - registered for this type
    body = {"error": str(exc.detail), "code": f"http_{exc.status_code}", "details": {}}
    return JSONResponse(body, status_code=exc.status_code, headers=exc.headers)


def _answer_invalid(_: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)  # noqa: S101 - registered for this type
    fields = [
        {"field": ".".join(str(part) for part in error["loc"][1:]), "problem": error["msg"]}
        for error in exc.errors()
    ]
    text, details = told_problems(fields)
    body = {"error": text, "code": "invalid_request", "details": details}
    return JSONResponse(body, status_code=400)


def _answer_fault(_: Request, exc: Exception) -> JSONResponse:
    body = {"error": "An unexpected fault", "code": "unexpected", "details": {}}
    del exc
    return JSONResponse(body, status_code=500)


def install_problem_answers(app: FastAPI) -> None:
    """Have every error of the app answered in the one form."""
    app.add_exception_handler(ApiProblem, _answer_problem)
    app.add_exception_handler(ClasperError, _answer_ours)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(Exception, _answer_fault)


# UTF-8 takes up to four; JSON may escape a character as \\uXXXX, or a pair of them.
BYTES_PER_CHARACTER = 12
_AT_ONCE_BYTES = 64 * 1024  # what is read without a thread
_SHOWN_CHARS = 60


async def json_object(request: Request, max_characters: int) -> dict[str, Any]:
    """Read a request's body.

    Args:
        request: the request.
        max_characters: of text that the body may hold.

    Raises:
        ApiProblem: 400 (no JSON object), 413 (too large) or 415 (another type or coding).
    """
    _check_type(request)
    content = await _bounded_body(request, max_characters * BYTES_PER_CHARACTER)
    if len(content) <= _AT_ONCE_BYTES:
        return _decoded(content)
    return await asyncio.to_thread(_decoded, content)


def _check_type(request: Request) -> None:
    content_type, _, parameters = request.headers.get("content-type", "").partition(";")
    # A browser may send other content types across origins without asking first.
    if content_type.strip().lower() != "application/json":
        raise ApiProblem(415, "content_type", "Send the body as application/json")
    name, _, charset = parameters.strip().lower().partition("=")
    if name == "charset" and charset.strip(' "') not in {"utf-8", "utf8", "us-ascii"}:
        raise ApiProblem(415, "content_type", "Send the body in UTF-8")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise ApiProblem(415, "content_encoding", "Send the body without a Content-Encoding")


def _decoded(content: bytes) -> dict[str, Any]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise _refused(f"The body is not valid UTF-8, at byte {exc.start:,}") from None
    if has_too_many_values(content):
        raise ApiProblem(413, "too_large", "The body has more values than are read at once")
    try:
        body = json.loads(text, object_pairs_hook=_unambiguous, parse_constant=_refuse_constant)
    except json.JSONDecodeError as exc:
        place = f"line {exc.lineno}, column {exc.colno}"
        raise _refused(f"The body is not valid JSON: {exc.msg} ({place})") from None
    except ValueError:  # of Python, about a number of thousands of digits
        raise _refused("The body holds a number of too many digits") from None
    except RecursionError:
        raise _refused("The body is nested too deep") from None
    if not isinstance(body, dict):
        raise _refused("The body is not a JSON object")
    repaired: dict[str, Any] = whole_json(body) if "\\ud" in text.lower() else body
    return repaired


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names differ: which of two values holds, readers of JSON do not agree on."""
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _refused(f"The body has {json.dumps(shortened(name, _SHOWN_CHARS))} twice")
            seen.add(name)
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise _refused(f"The body holds {name}, which JSON has not: send a number or null")


def _refused(problem: str) -> ApiProblem:
    return ApiProblem(400, "invalid_request", problem)


async def _bounded_body(request: Request, max_bytes: int) -> bytes:
    too_large = ApiProblem(413, "too_large", f"The body has more than {max_bytes:,} bytes")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and len(announced) < 20 and int(announced) > max_bytes:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise too_large
    except ClientDisconnect:  # nobody reads the answer, and nobody is to blame
        raise _refused("The body did not come whole") from None
    return bytes(body)
