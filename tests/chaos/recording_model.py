"""The recording model: ``python -m tests.chaos.recording_model``; OpenAI's chat API."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import time
from dataclasses import asdict
from typing import Any

from aiohttp import web

from tests.chaos.recording_server import RecordingServer, serve, worker_of
from tests.chaos.records import CallOutcome, ModelCall
from tests.chaos.script import SLOW_WORD, newest_message, next_answer

RECEIVED = "model.received"
STREAMING = "model.streaming"
ANSWERED = "model.answered"


class RecordingModel:
    """Answers by the script, after a latency, and remembers every call.

    Args:
        latency: of an answer, in seconds; each takes between half and one and a half of it.
        slow: what it takes more where the message has the script's `SLOW_WORD`.
        pause: between two pieces of a streamed answer, in seconds; none: they come at once.
    """

    def __init__(
        self, *, latency: float = 0.1, slow: float = 0.0, pause: float = 0.0, seed: int = 0
    ) -> None:
        self._latency = latency
        self._slow = slow
        self._pause = pause
        self._random = random.Random(seed)
        self._calls: list[ModelCall] = []
        self._begun = 0
        self._open = 0

    async def handle(self, request: web.Request, server: RecordingServer) -> web.StreamResponse:
        """Answer one chat completion."""
        worker, path = worker_of(request)
        if path != "/v1/chat/completions":
            return web.json_response({"error": {"message": "no such path"}}, status=404)
        self._begun += 1
        self._open += 1
        raw = await request.read()
        asked = json.loads(raw)
        token, step, message = next_answer(asked["messages"], self._begun)
        began = time.monotonic()
        outcome: CallOutcome = "abandoned"
        try:
            await server.traps.pass_by(RECEIVED, token or "", worker)
            answer = await self._answer(request, server, asked, message, (token or "", worker))
            if isinstance(answer, web.Response):
                await answer.prepare(request)
                await answer.write_eof()
                outcome = "answered" if answer.status == 200 else "refused"
            else:
                outcome = "cut" if "Content-Length" in answer.headers else "answered"
            ended = time.monotonic()
            if outcome == "answered":
                await server.traps.pass_by(ANSWERED, token or "", worker)
        finally:
            self._open -= 1
            if outcome == "abandoned":
                ended = time.monotonic()
            digest = hashlib.sha256(raw).hexdigest()[:16]
            self._calls.append(ModelCall(token or "", step, worker, began, ended, outcome, digest))
        return answer

    async def _answer(
        self,
        request: web.Request,
        server: RecordingServer,
        asked: dict[str, Any],
        message: dict[str, Any],
        caller: tuple[str, str],
    ) -> web.StreamResponse:
        """The answer as a fault lets it be; no `web.Response`, and with a length: it was cut."""
        fault = server.strikes()
        if fault.kind == "error":
            return web.json_response({"error": {"message": "a fault"}}, status=500)
        if fault.kind == "rate_limit":
            headers = {"Retry-After": f"{fault.seconds:g}"}
            error = {"error": {"message": "too many", "code": "rate_limit_exceeded"}}
            return web.json_response(error, status=429, headers=headers)
        late = fault.seconds if fault.kind == "slow" else 0.0
        if SLOW_WORD in newest_message(asked["messages"]):
            late += self._slow
        await asyncio.sleep(late + self._latency * self._random.uniform(0.5, 1.5))
        body, content_type = _body(asked, message, self._begun)
        if self._pause and asked.get("stream"):
            return await self._write_slowly(request, server, body, fault.kind == "half", caller)
        if fault.kind in {"reset", "half"}:
            reset = fault.kind == "reset"
            return await server.break_off(request, body, content_type, reset=reset)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _write_slowly(
        self,
        request: web.Request,
        server: RecordingServer,
        body: bytes,
        is_cut: bool,
        caller: tuple[str, str],
    ) -> web.StreamResponse:
        """Write event by event; in the middle the call is at `STREAMING`, or is cut there."""
        headers = {"Content-Type": "text/event-stream"}
        if is_cut:
            headers["Content-Length"] = str(len(body))
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        events = body.split(b"\n\n")[:-1]
        for number, event in enumerate(events):
            if number == len(events) // 2:
                if is_cut:
                    server.drop(request)
                    return response
                await server.traps.pass_by(STREAMING, *caller)
            await response.write(event + b"\n\n")
            await asyncio.sleep(self._pause * self._random.uniform(0.5, 1.5))
        await response.write_eof()
        return response

    def counts(self) -> dict[str, Any]:
        """Calls so far, and open now."""
        return {"calls": self._begun, "open": self._open}

    def records(self) -> dict[str, Any]:
        """All calls that have ended."""
        return {"calls": [asdict(call) for call in self._calls]}


def _body(asked: dict[str, Any], message: dict[str, Any], call: int) -> tuple[bytes, str]:
    """A chat completion, streamed where that was asked for."""
    fixed: dict[str, Any] = {
        "id": f"chatcmpl-{call}",
        "created": 1_760_000_000,
        "model": asked["model"],
    }
    tools = message.get("tool_calls")
    finish = "tool_calls" if tools else "stop"
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    if not asked.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": finish}
        whole = {**fixed, "object": "chat.completion", "choices": [choice], "usage": usage}
        return json.dumps(whole).encode(), "application/json"
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if tools:
        deltas.append({"tool_calls": [{"index": n, **tool} for n, tool in enumerate(tools)]})
    else:
        text = str(message["content"])
        deltas += [{"content": text[i : i + 12]} for i in range(0, len(text), 12)]
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas
    ]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if (asked.get("stream_options") or {}).get("include_usage"):
        chunks.append({"choices": [], "usage": usage})
    lines = [json.dumps({**fixed, "object": "chat.completion.chunk", **chunk}) for chunk in chunks]
    return "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode(), "text/event-stream"


if __name__ == "__main__":
    serve(
        RecordingModel(
            latency=float(os.environ.get("CHAOS_LATENCY", "0.1")),
            slow=float(os.environ.get("CHAOS_SLOW", "0")),
            pause=float(os.environ.get("CHAOS_PAUSE", "0")),
            seed=int(os.environ.get("CHAOS_SEED", "0")),
        )
    )
