"""``POST /llm-task``: one structured model call, waited for."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from clasper_worker.config.names import LLM_TASK
from clasper_worker.shim.description import json_body, problems
from clasper_worker.shim.http import json_object
from clasper_worker.shim.services import ShimServices
from clasper_worker.shim.waited import result_of
from clasper_worker.turn.llm_task import LlmTaskRequest, LlmTaskResult, parse_llm_task

_EXAMPLES = {
    "Data out of text": {
        "prompt": "Who is to be invited, and when?",
        "input": "Ask Ada and Grace whether Monday suits them.",
        "schema": {
            "type": "object",
            "properties": {
                "names": {"type": "array", "items": {"type": "string"}},
                "day": {"type": "string"},
            },
            "required": ["names", "day"],
            "additionalProperties": False,
        },
    }
}


def llm_task_routes(services: ShimServices) -> APIRouter:
    """The route that makes one model call."""
    router = APIRouter()

    @router.post(
        "/llm-task",
        operation_id="runLlmTask",
        tags=["turns"],
        summary="Ask a model once, for JSON that fits a schema",
        responses={
            200: {"model": LlmTaskResult, "description": "What it gave"},
            **problems(400, 413, 415, 500, 502, 503, 504),
        },
        openapi_extra=json_body(LlmTaskRequest, _EXAMPLES),
        response_model=None,
    )
    async def llm_task(request: Request) -> Response:
        body = await json_object(request, services.limits.request_chars)
        await asyncio.to_thread(parse_llm_task, body, services.limits)
        return await result_of(services, LLM_TASK, body)

    return router
