"""A listener over HTTP, as a client in any language would be one."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import httpx2

KEY = {"X-Agent-Daemon-Key": "key"}
WORDS = " ".join(f"word{number}" for number in range(40))


class HttpListener:
    """Follows a turn by one or more shims; drops what is void, goes on after each cut.

    Args:
        shims: addresses; each time it comes again it asks the next one.
    """

    def __init__(self, shims: Sequence[str]) -> None:
        self._shims = list(shims)
        self._asked = 0
        self.url: str | None = None
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.texts: dict[int, str] = {}
        self.headers: dict[str, str] = {}

    def ask(self, request: dict[str, Any], *, cut_after: int | None = None) -> None:
        """Enqueue a turn, and listen."""
        self._listen("POST", "/api/agents/stream", request, cut_after)

    def go_on(self, *, cut_after: int | None = None) -> None:
        """Listen from where it had come to."""
        assert self.url is not None
        self._listen("GET", self.url, None, cut_after)

    def to_the_end(self, *, cut_after: int | None = None) -> None:
        """Go on, however often the connection breaks, until the last event."""
        while not self.is_over:
            try:
                self.go_on(cut_after=cut_after)
            except httpx2.HTTPError:
                threading.Event().wait(0.05)

    @property
    def is_over(self) -> bool:
        return bool(self.events) and self.events[-1][1]["type"] in {"done", "error"}

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1][1]

    @property
    def types(self) -> list[str]:
        return [event["type"] for _, event in self.events]

    @property
    def text(self) -> str | None:
        """The chunks of the last step."""
        return self.texts[max(self.texts)] if self.texts else None

    def _listen(
        self, method: str, path: str, request: dict[str, Any] | None, cut_after: int | None
    ) -> None:
        base = self._shims[self._asked % len(self._shims)]
        self._asked += 1
        headers = {**KEY, **({"Last-Event-ID": self.events[-1][0]} if self.events else {})}
        with (
            httpx2.Client(timeout=60) as http,
            http.stream(method, f"{base}{path}", json=request, headers=headers) as answer,
        ):
            if answer.status_code >= 500:
                raise httpx2.NetworkError("it is not up yet")
            assert answer.status_code == 200, answer.read()
            self.headers = dict(answer.headers)
            self.url = self.url or answer.headers["content-location"]
            for event_id, data in _events(answer.iter_lines()):
                self._take(event_id, data)
                if cut_after is not None:
                    cut_after -= 1
                    if not cut_after:
                        return

    def _take(self, event_id: str, data: dict[str, Any]) -> None:
        assert not self.is_over, "nothing comes after the last event"
        assert event_id not in [known for known, _ in self.events], "each event comes once"
        self.events.append((event_id, data))
        if data["type"] == "chunk":
            self.texts[data["step"]] = self.texts.get(data["step"], "") + data["data"]
        elif data["type"] == "retry":
            self.texts.pop(data["step"], None)


def _events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    event_id = ""
    for line in lines:
        if line.startswith("id: "):
            event_id = line[4:]
        elif line.startswith("data: "):
            yield event_id, json.loads(line[6:])


def a_request(message: str = WORDS, **fields: Any) -> dict[str, Any]:
    user = secrets.token_hex(8)
    return {"user_id": user, "message": f"Say: {message}", "task_title": "T", **fields}


def assert_right(listener: HttpListener) -> None:
    assert listener.last["type"] == "done", listener.last
    assert listener.text == listener.last["response"]


def in_background(target: Any, *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def joined(thread: threading.Thread) -> None:
    thread.join(120)
    assert not thread.is_alive()
