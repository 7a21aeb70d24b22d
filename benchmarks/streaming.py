"""How soon the first token is at a client, and what streaming costs the worker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from figures import in_ms
from plan import Plan
from processes import BenchmarkError
from rig import Batch, Rig
from shim_process import ShimProcess
from turns import Turn, make_turns

CHUNKS, MORE_CHUNKS = 20, 120
_MODEL_SECONDS = 1.2  # that an answer takes, streamed or not
_FIRST_SECONDS = 0.3


def measure(rig: Rig, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """The worker's CPU for the same turns unstreamed, in 20 chunks and in 120; first tokens."""
    count, streams, timed = plan.streamed
    plain = _batch(rig, plan, count, 0)
    few = _batch(rig, plan, count, CHUNKS)
    many = _batch(rig, plan, count, MORE_CHUNKS)
    each = (many.cpu_ms - few.cpu_ms) / (MORE_CHUNKS - CHUNKS) * 1000
    figures: dict[str, Any] = {
        "turns": count,
        "unstreamed_cpu_ms": round(plain.cpu_ms, 3),
        "streamed_cpu_ms": round(few.cpu_ms, 3),
        "more_share": round(few.cpu_ms / plain.cpu_ms - 1, 3),
        "each_further_chunk_us": round(each, 1),
        "redis_ms": {
            "unstreamed": round(plain.others["redis"], 3),
            "streamed": round(few.others["redis"], 3),
        },
    }
    say(
        f"CPU a turn: {plain.cpu_ms:.2f} ms unstreamed, {few.cpu_ms:.2f} in {CHUNKS} chunks"
        f" ({figures['more_share']:+.0%}), {each:.0f} µs each further chunk"
    )
    with rig.workers(warm_up=plan.warm_up), ShimProcess(rig) as shim:
        rig.behave(latency=_FIRST_SECONDS, chunks=CHUNKS, pause=0.05, says_when=1)
        took = asyncio.run(_first_tokens(rig, shim.port, make_turns(timed), streams))
    figures |= {"streams": streams, "first_token_ms": in_ms(took, 50, 95, 99, 100)}
    say(f"first token at {streams} streams: {figures['first_token_ms']} ms")
    return figures


def _batch(rig: Rig, plan: Plan, count: int, chunks: int) -> Batch:
    """A batch of turns whose model takes as long, in so many chunks or at once (0)."""
    pause = _MODEL_SECONDS / chunks if chunks else 0.0
    rig.behave(latency=0.0 if chunks else _MODEL_SECONDS, chunks=max(chunks, 1), pause=pause)
    variables = {"CLASPER_STREAM": "always" if chunks else "asked"}
    with rig.workers(warm_up=plan.warm_up, variables=variables) as workers:
        return rig.run(workers, make_turns(count))


async def _first_tokens(rig: Rig, port: int, turns: list[Turn], streams: int) -> list[float]:
    """From when the model sent the first token to when a client of the shim has it."""
    waiting = iter(turns)
    took: list[float] = []

    async def listen() -> None:
        while (turn := next(waiting, None)) is not None:
            took.append(await _first_token(rig, port, turn))

    await asyncio.gather(*(listen() for _ in range(streams)))
    return took


async def _first_token(rig: Rig, port: int, turn: Turn) -> float:
    body = json.dumps(turn.request()).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /api/agents/stream HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    seconds, text = None, ""
    try:
        while line := await reader.readline():
            if not line.startswith(b"data: "):
                continue
            came = time.monotonic()
            data = json.loads(line[6:])
            if data["type"] == "chunk":
                text += data["data"]
                if seconds is None:
                    seconds = came - float(text.split()[0])
            elif data["type"] == "done":
                if text != data["response"]:
                    rig.faults.notes.append("streaming: the chunks are not the response")
                break
            elif data["type"] in {"error", "retry"}:
                rig.faults.notes.append(f"streaming: {data}")
    finally:
        writer.close()
    if seconds is None:
        raise BenchmarkError("a stream ended without any text")
    return seconds
