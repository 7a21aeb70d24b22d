"""``POST /compact``: summarise older history, and wait for it."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from clasper_worker.config.names import COMPACT_TASK
from clasper_worker.shim.description import json_body, problems
from clasper_worker.shim.http import json_object
from clasper_worker.shim.services import ShimServices
from clasper_worker.shim.waited import result_of
from clasper_worker.turn.compact import CompactRequest, CompactResult, parse_compact_request

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
        return await result_of(services, COMPACT_TASK, body)

    return router
