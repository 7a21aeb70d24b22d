"""The HTTP shim's app: enqueue turns and follow them, for backends in any language."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx2
from fastapi import Depends, FastAPI, Header, Query, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from clasper_worker import __version__
from clasper_worker.client import ClasperClient
from clasper_worker.settings import Settings
from clasper_worker.shim.auth import DaemonKey
from clasper_worker.shim.jobs import JobRegister
from clasper_worker.shim.problems import ApiProblem, install_problem_answers
from clasper_worker.shim.results import JobOutcome, JobResults
from clasper_worker.turn.request import RequestLimits, SendRequest, parse_send_request

MAX_WAIT_SECONDS = 600.0
_SEND_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": SendRequest.model_json_schema()}},
    }
}
# How a failed turn's error maps to a status: whose fault it was, not that of the shim's caller.
_CALLERS_FAULT = frozenset({"invalid_request"})


def create_app(settings: Settings) -> FastAPI:
    """Make the shim over the broker and result backend that the settings name."""
    client = ClasperClient.from_settings(settings)
    results = JobResults(client.app, settings.result_backend_url)
    register = JobRegister(settings.redis_url, ttl_seconds=settings.clasper_result_ttl_sec)
    limits = RequestLimits.from_settings(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await results.close()
        await register.close()
        client.close()

    app = FastAPI(
        title="Clasper Worker",
        version=__version__,
        description="Enqueue agent turns and follow them. Every error is `{error, code, details}`.",
        lifespan=lifespan,
    )
    install_problem_answers(app)
    keyed = [Depends(DaemonKey(settings.daemon_api_keys))]

    @app.post(
        "/api/agents/send",
        status_code=202,
        summary="Enqueue one agent turn",
        dependencies=keyed,
        openapi_extra=_SEND_BODY,
    )
    async def send(
        request: Request,
        wait: Annotated[str | None, Query(description="Seconds to wait for the result")] = None,
        prefer: Annotated[str | None, Header(description="`wait=SECONDS` (RFC 7240)")] = None,
    ) -> Response:
        seconds = _wait_seconds(wait, prefer)
        body = await _json_object(request)
        checked = parse_send_request(body, limits)
        turn = await asyncio.to_thread(client.enqueue, checked, body)
        await register.add(turn.job_id, turn.turn_id)
        if seconds > 0:
            outcome = await results.wait(turn.job_id, seconds)
            if outcome.ended:
                return _ended(turn.job_id, turn.turn_id, outcome)
        return JSONResponse(
            {
                "status": "queued",
                "job_id": turn.job_id,
                "turn_id": turn.turn_id,
                "status_url": f"/api/jobs/{turn.job_id}",
                "events_url": f"/api/jobs/{turn.job_id}/events",
            },
            status_code=202,
            headers={"Location": f"/api/jobs/{turn.job_id}"},
        )

    @app.get("/api/jobs/{job_id}", summary="A job's status and result", dependencies=keyed)
    async def job(job_id: str) -> dict[str, Any]:
        outcome = await results.read(job_id)
        turn_id = await register.turn_id(job_id)
        if turn_id is None and outcome.state == "PENDING":
            raise ApiProblem(
                404,
                "unknown_job",
                "No such job, or it was enqueued past this shim and has not started",
            )
        return _job_status(job_id, turn_id, outcome)

    @app.get("/health", summary="Whether the shim is alive; `deep` asks what it depends on")
    async def health(*, deep: bool = False) -> dict[str, Any]:
        if not deep:
            return {"status": "ok", "version": __version__}
        checks = {"redis": await register.reachable(), "backend": await _backend_answers(settings)}
        status = "ok" if all(checks.values()) else "degraded"
        return {"status": status, "version": __version__, "checks": checks}

    return app


async def _json_object(request: Request) -> dict[str, Any]:
    # A browser may send other content types across origins without asking first.
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise ApiProblem(415, "content_type", "Send the body as application/json")
    try:
        body = json.loads(await request.body())
    except ValueError:
        raise ApiProblem(400, "invalid_request", "The body is not valid JSON") from None
    if not isinstance(body, dict):
        raise ApiProblem(400, "invalid_request", "The body is not a JSON object")
    return body


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
    status = 400 if outcome.error["code"] in _CALLERS_FAULT else 502
    if outcome.state == "REVOKED":
        status = 409
    ids = {"job_id": job_id, "turn_id": turn_id}
    return JSONResponse({"status": "failed", **ids, **outcome.error}, status_code=status)


_STATUS_WORDS = {
    "PENDING": "queued",
    "RECEIVED": "queued",
    "STARTED": "running",
    "RETRY": "queued",
    "SUCCESS": "succeeded",
    "FAILURE": "failed",
    "REVOKED": "cancelled",
}


def _job_status(job_id: str, turn_id: str | None, outcome: JobOutcome) -> dict[str, Any]:
    status: dict[str, Any] = {
        "job_id": job_id,
        "status": _STATUS_WORDS.get(outcome.state, "running"),
        "state": outcome.state,
    }
    if turn_id is None and outcome.result is not None:
        turn_id = outcome.result.get("turn_id")
    if turn_id is not None:
        status["turn_id"] = turn_id
    if outcome.result is not None:
        status["result"] = outcome.result
    if outcome.error is not None:
        status["error"] = outcome.error
    return status


async def _backend_answers(settings: Settings) -> bool:
    if settings.backend_url is None:
        return False
    url = f"{settings.backend_url}/api/mission-control/capabilities"
    try:
        async with httpx2.AsyncClient(timeout=3.0) as http:
            answer = await http.get(url)
    except httpx2.HTTPError:
        return False
    return answer.status_code < 500  # 401 without a token: it is there
