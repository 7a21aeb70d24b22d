"""Errors as the shim answers them: ``{"error", "code", "details"}``, as in the contract."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from clasper_worker.error_bounds import told_problems
from clasper_worker.errors import (
    ClasperError,
    ConfigurationError,
    InvalidRequestError,
    StateUnavailableError,
)
from clasper_worker.shim.schemas import Problem

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
