"""One error body for everything that can go wrong: ``{"error", "code", "details"}``.

Status codes are the contract's (Part 1, "Errors"): 400 payload, 401 auth, 403 not permitted,
404 not found, 409 conflict, 500; and, from HTTP itself, 405 and 413.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clasper_worker.text.bounds import told_problems

_CODES = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
}

# What to do about it, by pydantic's error type, where its own message does not already say.
_FIXES = {
    "missing": "Add it to the request.",
    "json_invalid": "Send well-formed JSON in UTF-8.",
    "model_attributes_type": "Send a JSON object, with Content-Type: application/json.",
    "dict_type": "Send a JSON object, with Content-Type: application/json.",
    "extra_forbidden": "Leave it out.",
}


class ErrorBody(BaseModel):
    """What every error answers with."""

    error: str
    code: str
    details: dict[str, Any]


class ApiError(Exception):
    """A request that is answered with an error.

    Args:
        status: the HTTP status code.
        message: what went wrong and how to fix it; no secrets, no people's text.
        code: a stable name for programs; by default the one that belongs to the status.
        details: more for programs, JSON types only.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code or _CODES[status]
        self.details = dict(details or {})


def invalid_field(field: str, problem: str, fix: str) -> ApiError:
    """A 400 about one field, in the shape of the validation errors."""
    return invalid_fields([{"field": field, "problem": problem, "fix": fix}])


def invalid_fields(fields: list[dict[str, str]]) -> ApiError:
    """A 400 that lists `{field, problem, fix}`."""
    text, _ = told_problems({"field": item["field"], "problem": item["problem"]} for item in fields)
    _, details = told_problems(fields)
    return ApiError(400, f"The request is not valid: {text}", details=details)


def describe(errors: list[ErrorDetails], *, drop: int = 0) -> list[dict[str, str]]:
    """Pydantic's errors as `{field, problem, fix}`, without the input's values.

    Args:
        errors: what ``ValidationError.errors()`` returns.
        drop: how many leading parts of each location to leave out ("body", "query").
    """
    fields = []
    for error in errors:
        where = () if error["type"] == "json_invalid" else error["loc"][drop:]
        fields.append(
            {
                "field": ".".join(str(part) for part in where) or "body",
                "problem": error["msg"].removeprefix("Value error, "),
                "fix": _FIXES.get(error["type"], "Send a value that fits; /docs lists them."),
            }
        )
    return fields


def error_response(
    status: int,
    message: str,
    code: str,
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The contract's error body as a response."""
    body = {"error": message, "code": code, "details": dict(details or {})}
    return JSONResponse(body, status_code=status, headers=headers)


class BodyLimit:
    """ASGI middleware that answers 413 once a request's body has grown too large.

    FastAPI's own ``max_body_size`` answers in plain text.

    Args:
        app: the ASGI app.
        limit: the largest body, in bytes.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting its body."""
        size = 0

        async def receive_so_much() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit:
                raise HTTPException(413, f"A request's body may have {self._limit} bytes at most.")
            return message

        await self._app(scope, receive_so_much, send)


async def _on_api_error(request: Request, exc: Exception) -> JSONResponse:
    del request
    assert isinstance(exc, ApiError)  # noqa: S101 - registered for this type only
    return error_response(exc.status, exc.message, exc.code, exc.details)


async def _on_invalid_request(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)  # noqa: S101 - registered for this type only
    return await _on_api_error(request, invalid_fields(describe(list(exc.errors()), drop=1)))


async def _on_http_error(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)  # noqa: S101 - registered for this type only
    message = str(exc.detail)
    if exc.status_code in {404, 405}:
        message = f"There is no {request.method} {request.url.path} here; /docs lists what is."
    code = _CODES.get(exc.status_code, "error")
    return error_response(exc.status_code, message, code, headers=exc.headers)


async def _on_bug(request: Request, exc: Exception) -> JSONResponse:
    del request, exc  # the server logs it, with its traceback
    return error_response(500, "The backend failed; its log has the reason.", "internal")


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of `app`, also FastAPI's own, answer with the contract's body."""
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_bug)
