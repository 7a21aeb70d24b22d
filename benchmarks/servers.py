"""The model server and the backend of the benchmark: ``python servers.py model|backend``.

Both answer from raw protocols and check nothing that costs time. They take commands on
``/bench/...`` from the benchmark itself.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections import deque
from typing import Any

from http_protocol import Answer, Handler, Request, serve
from internal_endpoints import InternalEndpoints
from turns import MARK_END, MARK_START, reply_to

_BASE = b"/api/mission-control/"


class ModelServer:
    """Answers every chat completion with the reply to the token in the newest user message.

    What was used (tokens) differs from call to call, as it does with real models: a worker that
    remembers the price of equal usages gains nothing here that it would not gain there.
    """

    def __init__(self) -> None:
        self._latency = 0.0
        self._chunks, self._pause, self._says_when = 1, 0.0, False
        self._calls = 0
        self._answers: deque[float] = deque()  # when the open calls will be answered
        self._peak = 0
        self._last = b"{}"

    def __call__(self, request: Request) -> Answer:
        if request.path == b"/v1/chat/completions":
            return self._complete(request)
        if request.path == b"/bench/configure":
            asked = json.loads(request.body)
            self._latency = float(asked["latency"])
            self._chunks, self._pause = int(asked.get("chunks", 1)), float(asked.get("pause", 0))
            self._says_when = bool(asked.get("says_when"))
            self._calls = self._peak = 0
            self._answers.clear()
            return Answer(b"{}")
        if request.path == b"/bench/counts":
            return _json({"calls": self._calls, "peak": self._peak})
        if request.path == b"/bench/last":
            return Answer(self._last)
        return Answer(b"{}", b"404 Not Found")

    def _complete(self, request: Request) -> Answer:
        body = request.body
        # The newest user message is the last of the messages, and only tools follow those.
        at = body.rfind(MARK_START)
        token = body[at : body.find(MARK_END, at) + len(MARK_END)].decode()
        self._calls += 1
        self._last = body
        self._count_open()
        prompt, completion = len(body) // 4 + self._calls % 101, 60 + self._calls % 97
        if b'"stream":true' in body or b'"stream": true' in body:
            return self._stream(reply_to(token), prompt, completion)
        answer = {
            "id": f"chatcmpl-{self._calls}",
            "object": "chat.completion",
            "created": 1_760_000_000,
            "model": "gpt-4o-mini-2024-07-18",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": reply_to(token), "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            },
            "system_fingerprint": "fp_bench",
        }
        return Answer(json.dumps(answer).encode(), delay=self._latency)

    def _stream(self, text: str, prompt: int, completion: int) -> Answer:
        """The same in so many chunks; the first is the moment at which it is sent, where asked."""
        size = -(-len(text) // self._chunks)
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
        parts = [lambda piece=piece: _chunk({"content": piece}) for piece in pieces]
        if self._says_when:
            parts[0] = lambda: _chunk({"content": f"{time.monotonic():.6f} "})
        parts.append(lambda: _chunk({}, "stop", usage) + b"data: [DONE]\n\n")
        return Answer(b"", delay=self._latency, parts=tuple(parts), pause=self._pause)

    def _count_open(self) -> None:
        now = time.monotonic()
        while self._answers and self._answers[0] <= now:
            self._answers.popleft()
        self._answers.append(now + self._latency)
        self._peak = max(self._peak, len(self._answers))


class BackendServer:
    """Mission Control's endpoints as far as turns call them, and a memory of what was posted.

    It does not drop a repeated POST, as a real backend would by the idempotency key: nothing
    fails in a benchmark, so a repetition is a fault that it should show.
    """

    def __init__(self) -> None:
        self._history = 0
        self._calls: dict[str, int] = {}
        self._posts: list[tuple[float, str, str, str]] = []
        self._internal = InternalEndpoints()
        self._endpoints: dict[str, Handler] = {
            "GET capabilities": self._capabilities,
            "GET tasks": self._tasks,
            "POST tasks": self._create,
            "GET messages": self._messages,
            "POST messages": self._post_message,
            "POST documents": self._create,
        }

    def __call__(self, request: Request) -> Answer:
        if not request.path.startswith(_BASE):
            return self._command(request)
        method, name = request.method.decode(), request.path[len(_BASE) :].decode()
        endpoint, answer = self._internal.handler(method, name)
        self._calls[endpoint] = self._calls.get(endpoint, 0) + 1
        answer = answer or self._endpoints.get(endpoint)
        if answer is None:
            return Answer(b'{"error": "no such endpoint"}', b"404 Not Found")
        return answer(request)

    def _capabilities(self, request: Request) -> Answer:
        del request
        features = dict.fromkeys(
            ("tasks", "messages", "documents", "notifications_dispatch", "agents"), True
        )
        return _json(
            {"contract_version": "v1", "features": {**features, "history": self._history >= 0}}
        )

    def _create(self, request: Request) -> Answer:
        return _json({"id": f"new-{sum(self._calls.values())}", **json.loads(request.body)})

    def _post_message(self, request: Request) -> Answer:
        body = json.loads(request.body)
        stamp = time.monotonic()
        content = body["content"]
        self._posts.append((stamp, _user(request), body["task_id"], content))
        stored = {"id": f"m-{len(self._posts)}", "task_id": body["task_id"], "content": content}
        return _json(stored)

    def _tasks(self, request: Request) -> Answer:
        user = _user(request)
        titles = ("Invoices", "Conversation", "Roadmap")
        items = [
            {"id": f"task-{user}-{title}", "title": title, "status": "in_progress"}
            for title in titles
        ]
        return _json({"items": items})

    def _messages(self, request: Request) -> Answer:
        query = dict(pair.split(b"=", 1) for pair in request.query.split(b"&"))
        start = int(query.get(b"cursor", b"0"))
        stop = min(start + int(query[b"limit"]), max(self._history, 0))
        items = [
            {
                "id": f"h-{number}",
                "task_id": query[b"task_id"].decode(),
                "content": history_text(number),
                "actor_type": "user" if number % 2 == 0 else "agent",
            }
            for number in range(start, stop)
        ]
        page: dict[str, Any] = {"items": items}
        if stop < self._history:
            page["next_cursor"] = str(stop)
        return _json(page)

    def _command(self, request: Request) -> Answer:
        if request.path == b"/bench/configure":
            self._history = int(json.loads(request.body)["history"])
            self._calls, self._posts = {}, []
            self._internal.forget()
            return Answer(b"{}")
        if request.path == b"/bench/counts":
            last = self._posts[-1][0] if self._posts else 0.0
            counts = {"calls": self._calls, "posts": len(self._posts), "last": last}
            return _json({**counts, **self._internal.counts()})
        if request.path == b"/bench/posts":
            return _json(self._posts)
        return self._internal.command(request) or Answer(b"{}", b"404 Not Found")


def history_text(number: int) -> str:
    """One earlier message of a thread, about 200 characters."""
    return (
        f"Earlier message {number}: the figures for the northern region came in on Tuesday, and"
        " two of the suppliers have confirmed the new dates in writing. The third asked for more"
        " time and will answer soon."
    )


def _user(request: Request) -> str:
    """The user id in the agent token, whose signature is taken on trust."""
    claims = request.header(b"x-agent-token").split(b".")[1]
    user: str = json.loads(base64.urlsafe_b64decode(claims + b"=" * (-len(claims) % 4)))["user_id"]
    return user


def _chunk(
    delta: dict[str, str], finish: str | None = None, usage: dict[str, int] | None = None
) -> bytes:
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": "gpt-4o-mini-2024-07-18",
        "system_fingerprint": "fp_bench",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    if usage is not None:
        chunk["usage"] = usage
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _json(value: object) -> Answer:
    return Answer(json.dumps(value).encode())


if __name__ == "__main__":
    handlers: dict[str, Handler] = {"model": ModelServer(), "backend": BackendServer()}
    serve(handlers[sys.argv[1]])
