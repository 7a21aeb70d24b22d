"""``POST /api/agents/send``: enqueue one turn, and wait for it if asked to."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from clasper_worker.shim.problems import ApiProblem
from clasper_worker.shim.results import JobOutcome
from clasper_worker.shim.services import ShimServices
from clasper_worker.turn.request import SendRequest, parse_send_request

MAX_WAIT_SECONDS = 600.0
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": SendRequest.model_json_schema()}},
    }
}
# UTF-8 takes up to four; JSON may escape a character as \\uXXXX, or a pair of them.
_BYTES_PER_CHARACTER = 12
# Whose fault a failed turn was, as a status: the caller's, ours, or (else) a 502 of what we called.
_FAILURE_STATUS = {
    "invalid_request": 400,
    "turn_conflict": 409,
    "cancelled": 409,
    "turn_timeout": 504,
    "configuration": 500,
    "workspace": 500,
    "unexpected": 500,
}


def send_routes(services: ShimServices) -> APIRouter:
    """The route that enqueues."""
    router = APIRouter()

    @router.post(
        "/api/agents/send",
        status_code=202,
        summary="Enqueue one agent turn",
        openapi_extra=_BODY,
        response_model=None,
    )
    async def send(
        request: Request,
        wait: Annotated[str | None, Query(description="Seconds to wait for the result")] = None,
        prefer: Annotated[str | None, Header(description="`wait=SECONDS` (RFC 7240)")] = None,
    ) -> Response:
        seconds = _wait_seconds(wait, prefer)
        body = await _json_object(request, services.limits.request_chars * _BYTES_PER_CHARACTER)
        checked = parse_send_request(body, services.limits)
        turn = await asyncio.to_thread(services.client.enqueue, checked, body)
        await services.register.add(turn.job_id, turn.turn_id)
        if seconds > 0:
            outcome = await services.results.wait(turn.job_id, seconds)
            if outcome.ended:
                return _ended(turn.job_id, turn.turn_id, outcome)
        status_url = f"/api/jobs/{turn.job_id}"
        return JSONResponse(
            {
                "status": "queued",
                "job_id": turn.job_id,
                "turn_id": turn.turn_id,
                "status_url": status_url,
                "events_url": f"{status_url}/events",
            },
            status_code=202,
            headers={"Location": status_url},
        )

    return router


async def _json_object(request: Request, max_bytes: int) -> dict[str, Any]:
    # A browser may send other content types across origins without asking first.
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise ApiProblem(415, "content_type", "Send the body as application/json")
    try:
        body = json.loads(await _bounded_body(request, max_bytes))
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


def _wait_seconds(query: str | None, prefer: str | None) -> float:
    value = query
    if value is None and prefer is not None:
        preferences = (part.strip().partition("=") for part in prefer.replace(";", ",").split(","))
        value = next((text for name, _, text in preferences if name.lower() == "wait"), None)
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_WAIT_SECONDS:
        raise ApiProblem(
            400,
            "invalid_request",
            f"wait: must be a number of seconds from 0 to {MAX_WAIT_SECONDS:g}",
        )
    return seconds


def _ended(job_id: str, turn_id: str, outcome: JobOutcome) -> JSONResponse:
    if outcome.error is None:
        return JSONResponse(outcome.result)
    status = _FAILURE_STATUS.get(outcome.error["code"], 502)
    if outcome.error["details"].get("field") == "task_id":
        status = 404
    ids = {"job_id": job_id, "turn_id": turn_id}
    return JSONResponse({"status": "failed", **ids, **outcome.error}, status_code=status)
