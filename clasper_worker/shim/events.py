"""A job's events as an HTTP answer: server-sent events, for as long as the client listens."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from clasper_worker.streams.reader import Follower

_COMMENT = b": still here\r\n\r\n"
_HEADERS = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would hold events back
}


class EventStream(Response):
    """Sends what a listener gets; the client's going away ends the listening and nothing else.

    Args:
        follower: the listener.
        headers: beside those that such an answer has.
    """

    media_type = "text/event-stream"

    def __init__(self, follower: Follower, headers: dict[str, str] | None = None) -> None:
        super().__init__(headers={**_HEADERS, **(headers or {})})
        del self.headers["content-length"]
        self._follower = follower

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        del scope
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        watching = asyncio.create_task(self._watch(receive))
        try:
            await send(start)
            async for events in self._follower.batches():
                body = b"".join([event.sse for event in events]) or _COMMENT
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            watching.cancel()
            self._follower.close()
            with suppress(asyncio.CancelledError):
                await watching

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._follower.close()
