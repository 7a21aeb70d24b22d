"""A shim of the test's making, over HTTP: what it answers and streams, the test says, and when."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "the-shim's-own-key"
JOB = "job-1"
_PATH = re.compile(r"/api/jobs/([\w-]+)(/events)?")


class ScriptedShim:
    """What its HTTP server answers.

    Attributes:
        url: of the server.
        sent: the bodies of `send`, in order.
        resumed_after: the `Last-Event-ID` of each connection to the events; None without.
        cancelled: the jobs that were cancelled.
        refusal: status and body that every call gets; None: none.
        readiness: what `/ready` answers; 404 where it has none.
        ready_now: until it is set, `/ready` does not answer.
        has_events: whether the events can be followed at all.
        result: of the job, once it has ended.
    """

    def __init__(self) -> None:
        self.url = ""
        self.sent: list[dict[str, Any]] = []
        self.resumed_after: list[str | None] = []
        self.cancelled: list[str] = []
        self.refusal: tuple[int, dict[str, Any]] | None = None
        self.readiness: tuple[int, dict[str, Any]] = (404, {"error": "none", "code": "not_found"})
        self.ready_now = threading.Event()
        self.ready_now.set()
        self.has_events = True
        self.result: dict[str, Any] | None = None
        self._events: list[bytes] = []
        self._news = threading.Condition()
        self._stopped = False

    def emit(self, kind: str, **data: Any) -> None:
        """Stream one more event."""
        with self._news:
            text = json.dumps({"type": kind, **data})
            number = len(self._events) + 1
            self._events.append(f"id: e{number}\r\nevent: {kind}\r\ndata: {text}\r\n\r\n".encode())
            self._news.notify_all()

    def done(self, response: str, **fields: Any) -> None:
        """End the job well."""
        usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        self.result = {"status": "ok", "response": response, "usage": usage, "cost": {}, **fields}
        self.emit("done", **self.result)

    def after(self, last: str | None) -> Iterator[bytes]:
        """The events after one, as they come; ends with the last."""
        for position in itertools.count(int(last.removeprefix("e")) if last else 0):
            with self._news:
                while len(self._events) <= position and not self._stopped:
                    self._news.wait()
                if self._stopped:
                    return
                event = self._events[position]
            yield event
            if b"event: done" in event or b"event: error" in event:
                return

    def stop(self) -> None:
        """End all connections."""
        with self._news:
            self._stopped = True
            self.ready_now.set()
            self._news.notify_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, shim: ScriptedShim) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.shim = shim


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        shim = self.server.shim
        found = _PATH.fullmatch(self.path)
        if self.path == "/health":
            self._answer(200, {"status": "ok"})
        elif self.path == "/ready":
            self.server.shim.ready_now.wait()
            self._answer(*self.server.shim.readiness)
        elif not self._refused():
            if found is None or (found[2] and not shim.has_events):
                self._answer(404, {"error": "nothing here", "code": "not_found"})
            elif found[2]:
                self._stream()
            else:
                ended = {"result": shim.result} if shim.result else {}
                self._answer(200, {"job_id": found[1], **ended})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._refused():
            self.server.shim.sent.append(body)
            self._answer(202, {"status": "queued", "job_id": JOB, "turn_id": "turn-1"})

    def do_DELETE(self) -> None:
        if not self._refused():
            self.server.shim.cancelled.append(self.path.rpartition("/")[2])
            self._answer(200, {"status": "cancelled"})

    def _refused(self) -> bool:
        if self.headers.get("X-Agent-Daemon-Key") != KEY:
            self._answer(401, {"error": "no key", "code": "unauthorized"})
            return True
        if self.server.shim.refusal is not None:
            self._answer(*self.server.shim.refusal)
            return True
        return False

    def _stream(self) -> None:
        last = self.headers.get("Last-Event-ID")
        self.server.shim.resumed_after.append(last)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):  # the listener has gone
            for event in self.server.shim.after(last):
                self.wfile.write(event)
                self.wfile.flush()

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's
        return


@contextmanager
def scripted_shim() -> Iterator[ScriptedShim]:
    """A shim on a port of its own."""
    shim = ScriptedShim()
    server = _Server(shim)
    shim.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield shim
    finally:
        shim.stop()
        server.shutdown()
        server.server_close()
        thread.join()
