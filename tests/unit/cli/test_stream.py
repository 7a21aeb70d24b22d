"""What ``clasper send --stream`` prints."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from clasper_worker.cli import stream
from clasper_worker.cli.stream import Shown, follow_through_shim
from clasper_worker.errors import StateUnavailableError
from clasper_worker.streams.schema import read_event


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(out: io.StringIO, *events: dict[str, Any]) -> str:
    shown = Shown(out)
    for event in events:
        shown.take(read_event("1-0.0", event))
    shown.end_line()
    return out.getvalue()


def chunk(text: str, step: int = 1) -> dict[str, Any]:
    return {"type": "chunk", "data": text, "step": step}


RETRY = {"type": "retry", "step": 1}
DONE = {"type": "done", "response": "Hello"}


def test_text_is_printed_as_it_comes_and_ends_its_line() -> None:
    assert show(io.StringIO(), chunk("Hel"), chunk("lo"), DONE) == "Hello\n"


def test_each_steps_text_has_lines_of_its_own() -> None:
    assert show(io.StringIO(), chunk("I look."), chunk("Here.", 2)) == "I look.\nHere.\n"


def test_where_nothing_can_be_erased_a_line_says_what_is_void() -> None:
    printed = show(io.StringIO(), chunk("Hal"), RETRY, chunk("Hello"))
    first, mark, text = printed.splitlines()
    assert (first, text) == ("Hal", "Hello")
    assert "void" in mark


@pytest.mark.parametrize(
    ("void", "up"), [("Hal", ""), ("one\ntwo\nthr", "\x1b[2A"), ("x" * 90, "\x1b[1A")]
)
def test_on_a_terminal_what_is_void_is_erased(
    monkeypatch: pytest.MonkeyPatch, void: str, up: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    assert show(Terminal(), chunk(void), RETRY, chunk("Hello")) == f"{void}{up}\r\x1b[JHello\n"


def test_a_turn_that_was_not_streamed_is_printed_at_its_end() -> None:
    assert show(io.StringIO(), {"type": "step", "step": 1}, DONE) == "Hello\n"


@contextmanager
def a_shim(*answers: tuple[int, str], location: str | None) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these answers one after the other, and the requests that it had."""
    left, requests = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            requests.append(f"{self.command} {self.path} {self.headers.get('last-event-id')}")
            status, body = left.pop(0)
            self.send_response(status)
            if location is not None:
                self.send_header("Content-Location", location)
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 - its name

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()
            thread.join()


START = (
    'id: 1-0.0\r\nevent: start\r\ndata: {"type": "start", "job_id": "j", "turn_id": "t"}\r\n\r\n'
)
END = 'id: end-1.2\r\nevent: done\r\ndata: {"type": "done", "response": "Hello"}\r\n\r\n'


def test_a_shim_that_was_away_meanwhile_is_asked_again_from_the_last_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "_RECONNECT_SECONDS", 0.01)
    answers = (200, START), (503, "{}"), (502, "<html>"), (200, END)
    out = io.StringIO()
    with a_shim(*answers, location="/api/jobs/j/events") as (base, requests):
        result = follow_through_shim(base, {}, {}, Shown(out), 20)
    assert (result["response"], out.getvalue()) == ("Hello", "Hello\n")
    assert requests == ["POST /api/agents/stream None", *["GET /api/jobs/j/events 1-0.0"] * 3]


def test_a_turn_is_enqueued_once_though_nothing_says_where_to_go_on() -> None:
    with (
        a_shim((200, START), (200, END), location=None) as (base, requests),
        pytest.raises(StateUnavailableError, match="without the turn's end") as caught,
    ):
        follow_through_shim(base, {}, {}, Shown(io.StringIO()), 20)
    assert caught.value.details["turn_id"] == "t"
    assert len(requests) == 1
