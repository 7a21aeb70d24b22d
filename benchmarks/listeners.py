"""Many listeners of one shim process, cut again and again, the shim restarted once.

The turns are written by the workers' own writer, from this process, at a steady pace; each listener
checks that it has every event once, and in the end the text that the turn's result has.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from celery import Celery
from plan import Plan
from processes import BenchmarkError
from rig import Rig
from shim_process import ShimProcess
from turns import make_turns

from clasper_worker.engine.redis.scripts import State, redis_client
from clasper_worker.observability.events import TurnEnd, TurnReference
from clasper_worker.streams.writer import StreamWriter

CUTS = 5
WORDS = 40
_PACE_SECONDS = 20.0  # that a turn speaks for
_SPARE_SECONDS = 240.0
_CONNECTING_AT_ONCE = 200


@dataclass(slots=True)
class Listener:
    """One listener: what it has, and where it will be cut."""

    job_id: str
    cuts: list[int]
    ids: list[str] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    last: dict[str, Any] | None = None
    connections: int = 0
    faults: list[str] = field(default_factory=list)

    def take(self, event_id: str, data: dict[str, Any]) -> bool:
        """Take an event; True where the connection is to be cut after it."""
        if event_id in self.ids:
            self.faults.append("an event came twice")
        self.ids.append(event_id)
        if data["type"] == "chunk":
            self.texts[data["step"]] = self.texts.get(data["step"], "") + data["data"]
        elif data["type"] == "retry":
            self.texts.pop(data["step"], None)
            self.faults.append("a text had to be said anew")
        elif data["type"] in {"done", "error"}:
            self.last = data
            if self.texts.get(1) != data.get("response"):
                self.faults.append("the text is not the response")
            return True
        return bool(self.cuts) and len(self.ids) >= self.cuts[0] and bool(self.cuts.pop(0))


def measure(rig: Rig, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Have listeners follow turns; every one has to end with the right text."""
    turns_count, listeners_count = plan.listeners
    rig.backlog.clear()
    result = asyncio.run(_measure(rig, turns_count, listeners_count))
    say(
        f"{listeners_count:,} listeners of {turns_count:,} turns: {result['connections']:,}"
        f" connections, {result['events']:,} events, {result['seconds']:.0f} s,"
        f" {result['shim_cpu_seconds']:.0f} s of the shim's CPU, {result['shim_mb']:.0f} MB"
    )
    return result


async def _measure(rig: Rig, turns_count: int, listeners_count: int) -> dict[str, Any]:
    shim = ShimProcess(rig)
    await asyncio.to_thread(shim.start)
    try:
        chance = random.Random(7)
        turns = [turn.token[7:-2] for turn in make_turns(turns_count)]
        listeners = [
            Listener(turns[number % turns_count], sorted(chance.sample(range(1, WORDS), CUTS)))
            for number in range(listeners_count)
        ]
        connecting = asyncio.Semaphore(_CONNECTING_AT_ONCE)
        began = time.monotonic()
        speaking = asyncio.create_task(_speak(rig, turns))
        tasks = [asyncio.create_task(_listen(shim.port, one, connecting)) for one in listeners]
        await asyncio.sleep(_PACE_SECONDS / 2)
        resident = shim.resident_mb()
        cpu = shim.cpu_seconds()
        await asyncio.to_thread(shim.restart)
        async with asyncio.timeout(_SPARE_SECONDS):
            await asyncio.gather(speaking, *tasks)
        seconds = time.monotonic() - began
        faults = [fault for one in listeners for fault in one.faults]
        for fault in sorted(set(faults)):
            rig.faults.notes.append(f"listeners: {faults.count(fault)} times {fault}")
        return {
            "turns": turns_count,
            "listeners": listeners_count,
            "cuts": CUTS,
            "connections": sum(one.connections for one in listeners),
            "events": sum(len(one.ids) for one in listeners),
            "wrong": sum(bool(one.faults) for one in listeners),
            "seconds": round(seconds, 1),
            "shim_cpu_seconds": round(cpu + shim.cpu_seconds(), 1),
            "shim_mb": round(max(resident, shim.resident_mb()), 0),
        }
    finally:
        await asyncio.to_thread(shim.stop)


async def _speak(rig: Rig, turns: list[str]) -> None:
    """Write the turns' events as a worker would, and store their results."""
    client = redis_client(rig.broker.url)
    state = State(client)
    writer = StreamWriter(state, running_seconds=600)
    app = Celery("bench", broker=rig.broker.url, backend=rig.broker.url, set_as_current=False)
    references = [
        TurnReference(name, name, "t", "u", "s", "r", streamed=True, run=1) for name in turns
    ]
    for name in turns:
        await client.set(f"clasper:job:{name}", name, ex=600)
    for turn in references:
        writer.started(turn, resumed=False, queue_seconds=None)
        writer.model_asked(turn, step=1)
    began = time.monotonic()
    for word, due in _due(began):
        await asyncio.sleep(max(due - time.monotonic(), 0))
        for turn in references:
            writer.chunk(turn, step=1, text=word)
    response = "".join(word for word, _ in _due(began))
    for turn in references:
        await writer.flush(turn)
        writer.ended(turn, TurnEnd("ok"))
        result = {"status": "ok", "turn_id": turn.turn_id, "response": response}
        await asyncio.to_thread(app.backend.store_result, turn.job_id, result, "SUCCESS")
    await writer.close()
    await state.aclose()
    await client.aclose()
    app.close()


def _due(began: float) -> Iterator[tuple[str, float]]:
    for number in range(WORDS):
        yield f"word{number} ", began + _PACE_SECONDS * number / WORDS


async def _listen(port: int, listener: Listener, connecting: asyncio.Semaphore) -> None:
    while listener.last is None:
        writer = None
        try:
            async with connecting:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                resume = f"Last-Event-ID: {listener.ids[-1]}\r\n" if listener.ids else ""
                writer.write(
                    f"GET /api/jobs/{listener.job_id}/events HTTP/1.1\r\nHost: localhost\r\n"
                    f"{resume}\r\n".encode()
                )
                head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head[:16]:
                raise BenchmarkError(f"the shim answered {head[:60]!r}")
            listener.connections += 1
            await _read(reader, listener)
        except (OSError, EOFError):
            await asyncio.sleep(0.2)
        finally:
            if writer is not None:
                writer.transport.abort()


async def _read(reader: asyncio.StreamReader, listener: Listener) -> None:
    """Take events until a cut, or the connection's end (``0`` is the last chunk's size)."""
    event_id = ""
    while line := await reader.readline():
        if line.startswith(b"id: "):
            event_id = line[4:].strip().decode()
        elif line.startswith(b"data: "):
            if listener.take(event_id, json.loads(line[6:])):
                return
        elif line == b"0\r\n":
            return
