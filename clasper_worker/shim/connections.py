"""The shim's HTTP connections: none may be held for nothing, and no client keeps the others out.

Uvicorn waits for ever for the rest of a request, and for a reader that does not read. Here a
request has a time to come in and an answer a time to be taken; and where there are too many
connections, the oldest of those that ask for nothing yet makes room for the newest.
"""

from __future__ import annotations

import asyncio
import json
import resource
from contextlib import suppress

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

HEADER_SECONDS = 10.0
BODY_SECONDS = 60.0
WRITE_SECONDS = 30.0
MAX_CONNECTIONS = 8_000
MAX_HEADER_BYTES = 32 * 1024
_SPARE_FILES = 128  # for connections to Redis and the backend, threads, files


def connection_cap() -> int:
    """How many connections to take at once, having raised the limit of open files if it is low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + _SPARE_FILES
    infinite = resource.RLIM_INFINITY
    if soft != infinite and soft < wanted:
        raised = wanted if hard == infinite else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    if soft == infinite:
        return MAX_CONNECTIONS
    return max(min(MAX_CONNECTIONS, soft - _SPARE_FILES), soft // 2)


class BoundedConnection(H11Protocol):
    """Uvicorn's HTTP/1.1 connection, with an end to each of its waits.

    Attributes:
        cap: connections at once.
        header_seconds: from the connection, or the end of the request before, to the end of a
            request's headers.
        body_seconds: from there to the end of its body.
        write_seconds: that the client may leave what was sent to it unread.
        awaits: ``headers`` or ``body``, what of a request is to come; None where it is all here.
        since: when the connection was made, by the loop's clock.
    """

    cap = MAX_CONNECTIONS
    header_seconds = HEADER_SECONDS
    body_seconds = BODY_SECONDS
    write_seconds = WRITE_SECONDS

    _timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    awaits: str | None = None
    since = 0.0

    # What it waits for

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, in place of one that asks for nothing where there are too many."""
        if len(self.connections) >= self.cap:
            self._make_room()
        super().connection_made(transport)
        self.since = self.loop.time()
        if len(self.connections) > self.cap:
            self._refuse(503, "too_many_connections", "Too many connections: try again later")
            return
        self._expect("headers", self.header_seconds)

    def handle_events(self) -> None:
        """Handle what came, and wait for the rest of it for a bounded time."""
        super().handle_events()
        their = self.conn.their_state
        if self.transport.is_closing():
            self._expect(None, 0)
        elif their is h11.SEND_BODY:
            self._expect("body", self.body_seconds)
        elif their is not h11.IDLE:  # the request is here
            self._expect(None, 0)
        elif self.timeout_keep_alive_task is None:
            self._expect("headers", self.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._expect(None, 0)
        self._stop_write_timer()
        super().connection_lost(exc)

    def _expect(self, what: str | None, seconds: float) -> None:
        """Wait for this from now on; what it waits for already has the time it was given."""
        if what == self.awaits:
            return
        if self._timer is not None:
            self._timer.cancel()
        self.awaits = what
        self._timer = None if what is None else self.loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        self._refuse(408, "request_timeout", f"The request's {self.awaits} did not come in time")

    # Readers

    def pause_writing(self) -> None:
        """The client does not read: wait for it for a bounded time."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It does again."""
        self._stop_write_timer()
        super().resume_writing()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    # Ends

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request as every other error."""
        unread, _ = self.conn.trailing_data
        if len(unread) > MAX_HEADER_BYTES:
            self._refuse(431, "headers_too_large", "The request's headers are too large")
        else:
            self._refuse(400, "http_400", msg)

    def _refuse(self, status: int, code: str, error: str) -> None:
        """Answer that, if nothing was answered yet, and close the connection."""
        self._expect(None, 0)
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            body = json.dumps({"error": error, "code": code, "details": {}}).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            reason = STATUS_PHRASES[status]
            response = h11.Response(status_code=status, headers=headers, reason=reason)
            with suppress(h11.LocalProtocolError):
                for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # its app is to answer no more
            self.cycle.message_event.set()
        self.transport.close()
        # A client that does not read its answer either is not waited for.
        self.loop.call_later(1.0, self.transport.abort)

    def _make_room(self) -> None:
        """Close the oldest connection that has asked for nothing yet, or else for half of it."""
        waiting = [one for one in self.connections if isinstance(one, BoundedConnection)]
        candidates = [one for one in waiting if one.is_idle or one.awaits == "body"]
        if candidates:
            oldest = min(candidates, key=lambda one: (one.awaits == "body", one.since))
            self.connections.discard(oldest)
            oldest.transport.abort()

    @property
    def is_idle(self) -> bool:
        """Whether no request has come yet, or none since the last was answered."""
        return self.awaits == "headers" or self.timeout_keep_alive_task is not None
