"""``/api/jobs``: follow a job that was enqueued, or cancel it."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Response

from clasper_worker.shim.description import EVENTS_ANSWER, problems
from clasper_worker.shim.events import EventStream
from clasper_worker.shim.http import ApiProblem
from clasper_worker.shim.schemas import Job
from clasper_worker.shim.services import ShimServices
from clasper_worker.streams.ids import read_id
from clasper_worker.streams.results import JobOutcome

_CANCEL_WAIT_SECONDS = 5.0
_TAKEN_IN_SECONDS = 2.0  # workers look at their queues twice a second
_LOOK_SECONDS = 0.2

JobId = Annotated[str, Path(description="As `send` answered it.")]


def job_routes(services: ShimServices) -> APIRouter:
    """The routes that tell how a job is doing, and cancel it."""
    router = APIRouter()

    @router.get(
        "/api/jobs/{job_id}",
        operation_id="getJob",
        tags=["jobs"],
        summary="A job's status and result",
        responses={200: {"model": Job}, **problems(404, 503)},
        response_model=None,
    )
    async def job(job_id: JobId) -> dict[str, Any]:
        return _job_status(job_id, *await _known(services, job_id))

    @router.get(
        "/api/jobs/{job_id}/events",
        operation_id="followJob",
        tags=["jobs"],
        summary="A job's events as they come, from the first or from where a listener had come to",
        responses={
            200: EVENTS_ANSWER,
            204: {"description": "The last event has come already: there is nothing more"},
            **problems(400, 404, 503),
        },
        response_class=Response,
        response_model=None,
    )
    async def events(
        job_id: Annotated[str, Path(description="As `send` answered it, or a turn's id.")],
        last_event_id: Annotated[
            str | None, Header(description="The last event's id that came: go on after it.")
        ] = None,
    ) -> Response:
        if read_id(last_event_id).is_last:
            return Response(status_code=204)
        job, turn_id = await _followed(services, job_id)
        return EventStream(services.streams.follow(job, turn_id, last_event_id))

    @router.delete(
        "/api/jobs/{job_id}",
        operation_id="cancelJob",
        tags=["jobs"],
        summary="Cancel a job; one that has ended keeps its result",
        responses={
            200: {"model": Job, "description": "It has ended"},
            202: {"model": Job, "description": "It was asked to stop, and still runs"},
            **problems(404, 503),
        },
        response_model=None,
    )
    async def cancel(job_id: JobId, response: Response) -> dict[str, Any]:
        canceller = services.canceller
        # Only what was queued here is searched for among all that waits.
        is_ours = await services.register.turn_id(job_id) is not None
        job = await asyncio.to_thread(canceller.cancel_job, job_id, wait=0, thoroughly=is_ours)
        if job.found == "unknown" and is_ours:
            await asyncio.to_thread(canceller.announce_unseen, job_id)
        elif job.found == "running":
            await services.results.wait(job_id, _CANCEL_WAIT_SECONDS)
        turn_id, outcome = await _known(services, job_id)
        if not outcome.ended:
            response.status_code = 202
        return _job_status(job_id, turn_id, outcome)

    return router


async def _followed(services: ShimServices, job_id: str) -> tuple[str, str | None]:
    """The job and its turn, by the id of either; one that no worker has taken in yet is waited for.

    Raises:
        ApiProblem: there is none of that id.
    """
    deadline = time.monotonic() + _TAKEN_IN_SECONDS
    while True:
        found = await services.streams.turn_of(job_id)
        if found is not None:
            return found
        if (await services.results.read(job_id)).state != "PENDING":
            return job_id, None
        if time.monotonic() > deadline:
            raise _unknown()
        await asyncio.sleep(_LOOK_SECONDS)


async def _known(services: ShimServices, job_id: str) -> tuple[str | None, JobOutcome]:
    outcome = await services.results.read(job_id)
    turn_id = await services.register.turn_id(job_id)
    if turn_id is None and outcome.state == "PENDING":
        raise _unknown()
    return turn_id, outcome


def _unknown() -> ApiProblem:
    return ApiProblem(
        404, "unknown_job", "No such job, or it was enqueued past this shim and has not started"
    )


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
