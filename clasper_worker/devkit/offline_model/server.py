"""The offline model's HTTP server: an ASGI app that speaks the OpenAI chat completions API.

Routes: ``POST /v1/chat/completions``, ``POST /v1/embeddings``, ``GET /v1/models``,
``GET /v1/models/{id}``, ``GET /health`` and ``GET /requests``, which shows the last request bodies:
what an agent really told the model.
Any bearer key is accepted. Nothing is logged or written to disk.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from clasper_worker.devkit.offline_model.completion import (
    Completion,
    as_chunks,
    as_object,
    complete,
)
from clasper_worker.devkit.offline_model.embeddings import embed
from clasper_worker.devkit.offline_model.protocol import DEFAULT_MODEL, parse_request, read_object
from clasper_worker.devkit.offline_model.rules import decide
from clasper_worker.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class OfflineModelConfig:
    """How the server answers.

    Attributes:
        latency: seconds to wait before each answer.
        chunk_delay: seconds to wait before each chunk of a streamed answer, after the first.
        requests_kept: how many request bodies ``GET /requests`` remembers, in memory only.
    """

    latency: float = 0.0
    chunk_delay: float = 0.0
    requests_kept: int = 50


class _Api:
    """The routes' handlers and the requests that they remember."""

    def __init__(self, config: OfflineModelConfig) -> None:
        self._config = config
        self._started = int(time.time())
        self._received: deque[dict[str, Any]] = deque(maxlen=config.requests_kept)
        self._total = 0

    async def chat_completions(self, request: Request) -> Response:
        body = read_object(await request.body())
        self._remember(body)
        chat = parse_request(body)
        completion = complete(chat, decide(chat))
        if self._config.latency:
            await asyncio.sleep(self._config.latency)
        headers = {"x-request-id": completion.id, "cache-control": "no-cache"}
        if not chat.stream:
            return JSONResponse(as_object(completion), headers=headers)
        events = self._events(completion, include_usage=chat.reports_usage)
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def _events(self, completion: Completion, *, include_usage: bool) -> AsyncIterator[str]:
        for index, chunk in enumerate(as_chunks(completion, include_usage=include_usage)):
            if index and self._config.chunk_delay:
                await asyncio.sleep(self._config.chunk_delay)
            yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
        yield "data: [DONE]\n\n"

    async def embeddings(self, request: Request) -> Response:
        body = read_object(await request.body())
        return JSONResponse(await asyncio.to_thread(embed, body))

    async def models(self, request: Request) -> Response:
        del request
        return JSONResponse({"object": "list", "data": [self._model(DEFAULT_MODEL)]})

    async def model(self, request: Request) -> Response:
        return JSONResponse(self._model(request.path_params["model"]))

    async def health(self, request: Request) -> Response:
        del request
        return JSONResponse({"status": "ok", "service": "offline-model", "model": DEFAULT_MODEL})

    async def requests(self, request: Request) -> Response:
        text = request.query_params.get("limit", str(self._config.requests_kept))
        if not text.isdecimal() or int(text) < 1:
            raise InvalidRequestError(
                "Invalid 'limit': give a whole number of at least 1.",
                {"param": "limit", "code": "invalid_value"},
            )
        kept = list(self._received)[-int(text) :]
        return JSONResponse({"total": self._total, "requests": kept})

    def _remember(self, body: dict[str, Any]) -> None:
        self._total += 1
        self._received.append(
            {
                "number": self._total,
                "time": datetime.now(UTC).isoformat(),
                "streamed": body.get("stream") is True,
                "body": body,
            }
        )

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._started, "owned_by": "clasper"}


def create_app(config: OfflineModelConfig | None = None) -> Starlette:
    """Build the app, for uvicorn or for use in-process (``httpx2.ASGITransport``)."""
    api = _Api(config or OfflineModelConfig())
    return Starlette(
        routes=[
            Route("/v1/chat/completions", api.chat_completions, methods=["POST"]),
            Route("/v1/embeddings", api.embeddings, methods=["POST"]),
            Route("/v1/models", api.models),
            Route("/v1/models/{model:path}", api.model),
            Route("/health", api.health),
            Route("/requests", api.requests),
        ],
        exception_handlers={
            InvalidRequestError: _refuse,
            HTTPException: _no_such_route,
            Exception: _fail,
        },
    )


async def _refuse(request: Request, exc: Exception) -> Response:
    del request
    details = exc.details if isinstance(exc, InvalidRequestError) else {}
    return _error(400, str(exc), param=details.get("param"), code=details.get("code"))


async def _no_such_route(request: Request, exc: Exception) -> Response:
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    code = {404: "unknown_url", 405: "method_not_supported"}.get(status)
    return _error(status, f"Cannot {request.method} {request.url.path}.", code=code)


async def _fail(request: Request, exc: Exception) -> Response:
    del request
    return _error(500, f"The offline model failed ({type(exc).__name__}).", kind="server_error")


def _error(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    param: str | None = None,
    code: str | None = None,
) -> Response:
    error = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status_code=status)
