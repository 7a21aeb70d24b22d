"""How fast turns can be put on the queue: by Celery's own ``send_task``, and through the shim."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from backlog import QUEUE
from celery import Celery
from figures import in_ms
from plan import Plan
from processes import BenchmarkError
from rig import Rig
from shim_process import ShimProcess
from turns import Turn, make_turns

CALLERS = 16
"""Callers of the shim at a time, each with a connection of its own that it keeps."""


def measure(rig: Rig, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Send messages with no worker running, and count what the queue then holds."""
    rig.behave()
    ways: dict[str, Any] = {}

    def note(name: str, turns: int, seconds: float, took: list[float]) -> None:
        if len(took) != turns or (waiting := len(rig.backlog.take_back())) != turns:
            rig.faults.notes.append(f"enqueue {name}: {waiting} of {turns} are on the queue")
        ways[name] = {
            "messages": turns,
            "per_second": round(turns / seconds, 1),
            "ms": in_ms(took, 50, 99),
        }
        say(f"{name}: {ways[name]['per_second']:,.0f}/s, p99 {ways[name]['ms']['p99']} ms")

    for name, backend in (("send_task", None), ("send_task_with_results", rig.broker.url)):
        rig.backlog.clear()
        note(name, plan.enqueued, *_send(rig.broker.url, backend, make_turns(plan.enqueued)))
    rig.backlog.clear()
    with ShimProcess(rig) as shim:
        asyncio.run(_post(shim.port, make_turns(100), 1))
        rig.backlog.take_back()
        for name, callers in (("shim_1_caller", 1), (f"shim_{CALLERS}_callers", CALLERS)):
            turns = make_turns(plan.enqueued)
            note(name, plan.enqueued, *asyncio.run(_post(shim.port, turns, callers)))
    rig.backlog.clear()
    return ways


def _send(broker: str, backend: str | None, turns: list[Turn]) -> tuple[float, list[float]]:
    """One plain Celery app, one thread, one message after the other."""
    took = []
    with Celery("bench", broker=broker, backend=backend, set_as_current=False) as app:
        first = make_turns(1)[0]
        app.send_task("clasper.send", kwargs=first.request(), queue=QUEUE)  # connects
        app.connection_for_write().default_channel.queue_purge(QUEUE)
        began = time.perf_counter()
        for turn in turns:
            start = time.perf_counter()
            app.send_task("clasper.send", kwargs=turn.request(), queue=QUEUE)
            took.append(time.perf_counter() - start)
        return time.perf_counter() - began, took


async def _post(port: int, turns: list[Turn], callers: int) -> tuple[float, list[float]]:
    waiting = iter(turns)
    took: list[float] = []

    async def call() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for turn in waiting:
            body = json.dumps(turn.request()).encode()
            start = time.perf_counter()
            writer.write(
                b"POST /api/agents/send HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            lowered = head.lower()
            length = int(lowered.partition(b"content-length:")[2].partition(b"\r\n")[0])
            answer = await reader.readexactly(length)
            took.append(time.perf_counter() - start)
            if b" 202 " not in head[:16]:
                raise BenchmarkError(f"the shim answered {head[:30]!r} {answer[:200]!r}")
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    return time.perf_counter() - began, took
