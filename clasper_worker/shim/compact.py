"""``POST /compact``: summarise older history, and wait for it."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from clasper_worker.config.names import COMPACT_TASK
from clasper_worker.shim.description import json_body, problems
from clasper_worker.shim.http import ApiProblem, json_object
from clasper_worker.shim.results import failure_status
from clasper_worker.shim.services import ShimServices
from clasper_worker.turn.compact import CompactRequest, CompactResult, parse_compact_request

WAIT_SECONDS = 120.0
_EXAMPLES = {
    "A conversation": {
        "messages": [
            {"role": "user", "content": "The launch is on Monday."},
            {"role": "assistant", "content": "Noted."},
            {"role": "user", "content": "Draft the announcement."},
        ],
        "keep_recent": 1,
    }
}


def compact_routes(services: ShimServices) -> APIRouter:
    """The route that compacts."""
    router = APIRouter()

    @router.post(
        "/compact",
        operation_id="compactHistory",
        tags=["turns"],
        summary="Summarise older history to one message",
        responses={
            200: {"model": CompactResult, "description": "The shorter conversation"},
            **problems(400, 413, 415, 500, 502, 503, 504),
        },
        openapi_extra=json_body(CompactRequest, _EXAMPLES),
        response_model=None,
    )
    async def compact(request: Request) -> Response:
        body = await json_object(request, services.limits.request_chars)
        await asyncio.to_thread(parse_compact_request, body, services.limits)
        job_id = await asyncio.to_thread(services.client.submit, COMPACT_TASK, body)
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

    return router
