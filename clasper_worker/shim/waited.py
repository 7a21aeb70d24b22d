"""Enqueue a job and wait for its result, for endpoints that answer with it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

from clasper_worker.shim.http import ApiProblem
from clasper_worker.shim.results import failure_status
from clasper_worker.shim.services import ShimServices

WAIT_SECONDS = 120.0


async def result_of(services: ShimServices, task: str, body: Mapping[str, Any]) -> JSONResponse:
    """The result of a task.

    Raises:
        ApiProblem: it failed, or has no result within `WAIT_SECONDS`.
        StateUnavailableError: the broker cannot be reached.
    """
    job_id = await asyncio.to_thread(services.client.submit, task, body)
    outcome = await services.results.wait(job_id, WAIT_SECONDS)
    if outcome.error is not None:
        raise ApiProblem(
            failure_status(outcome.error),
            outcome.error["code"],
            outcome.error["error"],
            outcome.error["details"],
        )
    if not outcome.ended:
        raise ApiProblem(
            504,
            "no_result_yet",
            f"No result within {WAIT_SECONDS:g} seconds: is a worker running?",
            {"job_id": job_id},
        )
    return JSONResponse(outcome.result)
