"""The ids that join a request of the shim with its logs, its turn and what a caller knows of it."""

from __future__ import annotations

import uuid
from dataclasses import replace

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clasper_worker.observability.trace_context import (
    TRACE_ID,
    TRACEPARENT,
    TraceContext,
    within_trace,
)

_REQUEST_ID = "x-request-id"
_LONGEST_ID = 128


class Traced:
    """ASGI middleware: each request belongs to a trace, and has an id; the answer says which.

    The trace is the caller's, by ``traceparent`` or else ``X-Trace-Id``, or a new one.

    Args:
        app: the app behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        trace = (
            TraceContext.read(headers.get(TRACEPARENT))
            or TraceContext.of_trace(headers.get(TRACE_ID))
            or TraceContext()
        )
        request_id = _usable(headers.get(_REQUEST_ID)) or uuid.uuid4().hex

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(scope=message)
                answered[TRACE_ID] = trace.trace_id
                answered[_REQUEST_ID] = request_id
            await send(message)

        ids = {"trace_id": trace.trace_id, "request_id": request_id}
        here = replace(trace, parent_id=TraceContext().parent_id)
        with within_trace(here), structlog.contextvars.bound_contextvars(**ids):
            await self._app(scope, receive, told)


def _usable(request_id: str | None) -> str | None:
    """A caller's id, where a log line can carry it."""
    if request_id is None or not 0 < len(request_id) <= _LONGEST_ID:
        return None
    return request_id if all("!" <= char <= "~" for char in request_id) else None
