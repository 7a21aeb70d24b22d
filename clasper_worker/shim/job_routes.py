"""``/api/jobs``: follow a job that was enqueued, or cancel it."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from sse_starlette import EventSourceResponse

from clasper_worker.shim.events import job_events
from clasper_worker.shim.problems import ApiProblem
from clasper_worker.shim.results import JobOutcome
from clasper_worker.shim.services import ShimServices

_CANCEL_WAIT_SECONDS = 5.0


def job_routes(services: ShimServices) -> APIRouter:
    """The routes that tell how a job is doing, and cancel it."""
    router = APIRouter()

    @router.get("/api/jobs/{job_id}", summary="A job's status and result")
    async def job(job_id: str) -> dict[str, Any]:
        return _job_status(job_id, *await _known(services, job_id))

    @router.get(
        "/api/jobs/{job_id}/events",
        summary="A job as server-sent events; goes on after Last-Event-ID",
        response_model=None,
    )
    async def events(job_id: str, request: Request) -> EventSourceResponse:
        await _known(services, job_id)
        last_seen = request.headers.get("last-event-id")
        return EventSourceResponse(job_events(services.results, job_id, last_seen))

    @router.delete(
        "/api/jobs/{job_id}",
        summary="Cancel a job; one that has ended keeps its result",
        responses={202: {"description": "It was asked to stop, and still runs"}},
    )
    async def cancel(job_id: str, response: Response) -> dict[str, Any]:
        canceller = services.canceller
        job = await asyncio.to_thread(canceller.cancel_job, job_id, wait=0)
        if job.found == "unknown" and await services.register.turn_id(job_id) is not None:
            await asyncio.to_thread(canceller.announce_unseen, job_id)
        elif job.found == "running":
            await services.results.wait(job_id, _CANCEL_WAIT_SECONDS)
        turn_id, outcome = await _known(services, job_id)
        if not outcome.ended:
            response.status_code = 202
        return _job_status(job_id, turn_id, outcome)

    return router


async def _known(services: ShimServices, job_id: str) -> tuple[str | None, JobOutcome]:
    outcome = await services.results.read(job_id)
    turn_id = await services.register.turn_id(job_id)
    if turn_id is None and outcome.state == "PENDING":
        raise ApiProblem(
            404,
            "unknown_job",
            "No such job, or it was enqueued past this shim and has not started",
        )
    return turn_id, outcome


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
