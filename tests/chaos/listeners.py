"""Listeners of turns' streams over HTTP: each is cut now and then, and goes on at any shim."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.chaos.records import Heard

_CUTS = 3
_EVENTS_UNTIL_CUT = 8  # at most
_PAUSE_SECONDS = 0.2
_SILENCE_SECONDS = 25.0  # beyond the signs of life


@dataclass(slots=True)
class _Listener:
    """One listener that keeps to what is documented: what it has."""

    token: str
    job_id: str
    cuts: list[int]
    ids: list[str] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    response: str | None = None
    connections: int = 0
    faults: list[str] = field(default_factory=list)

    def take(self, event_id: str, data: dict[str, Any]) -> bool:
        """Take an event; True where it is the last."""
        if event_id in self.ids:
            self.faults.append("heard an event twice")
        self.ids.append(event_id)
        if data["type"] == "chunk":
            self.texts[data["step"]] = self.texts.get(data["step"], "") + data["data"]
        elif data["type"] == "retry":
            self.texts.pop(data["step"], None)
        elif data["type"] == "error":
            self.faults.append(f"heard the error {data['code']}")
        elif data["type"] == "done":
            self.response = data["response"]
        return data["type"] in {"done", "error"}

    def heard(self) -> Heard:
        """For the record."""
        text = self.texts[max(self.texts)] if self.texts else None
        return Heard(self.token, text, self.response, self.connections, tuple(self.faults))


class Listeners:
    """Listeners of many turns, in a thread of their own.

    Args:
        ports: of the shims.
        seed: of the cuts and of which shim each connection goes to.
    """

    def __init__(self, ports: Sequence[int], seed: int) -> None:
        self._ports = ports
        self._random = random.Random(seed)
        self._all: list[_Listener] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def follow(self, token: str, job_id: str) -> None:
        """Have one more listener follow a turn."""
        cuts = [self._random.randint(1, _EVENTS_UNTIL_CUT) for _ in range(_CUTS)]
        listener = _Listener(token, job_id, cuts)
        self._all.append(listener)
        self._loop.call_soon_threadsafe(self._start, listener)

    @property
    def are_done(self) -> bool:
        """Whether all have heard the end."""
        return len(self._tasks) == len(self._all) and all(task.done() for task in self._tasks)

    def close(self) -> list[Heard]:
        """End those that still listen; what each has."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        return [listener.heard() for listener in self._all]

    def _start(self, listener: _Listener) -> None:
        self._tasks.append(self._loop.create_task(self._listen(listener)))

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener, end in zip(self._all, ends, strict=True):
            if isinstance(end, Exception):
                listener.faults.append(f"could not go on: {end!r}")

    async def _listen(self, listener: _Listener) -> None:
        timeout = aiohttp.ClientTimeout(total=None, connect=5, sock_read=_SILENCE_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            is_over = False
            while not is_over:
                try:
                    is_over = await self._connect(session, listener)
                except (aiohttp.ClientError, OSError, TimeoutError):
                    await asyncio.sleep(_PAUSE_SECONDS)

    async def _connect(self, session: aiohttp.ClientSession, listener: _Listener) -> bool:
        """Listen until a cut or the connection's end; True where nothing more can come."""
        headers = {"Last-Event-ID": listener.ids[-1]} if listener.ids else {}
        port = self._random.choice(self._ports)
        url = f"http://127.0.0.1:{port}/api/jobs/{listener.job_id}/events"
        until = len(listener.ids) + listener.cuts.pop() if listener.cuts else None
        async with session.get(url, headers=headers) as answer:
            if answer.status in {404, 503}:  # not taken in by a worker yet; or Redis is away
                await asyncio.sleep(_PAUSE_SECONDS)
                return False
            if answer.status != 200:
                listener.faults.append(f"was answered {answer.status}")
                return True
            listener.connections += 1
            event_id = ""
            async for line in answer.content:
                if line.startswith(b"id: "):
                    event_id = line[4:].strip().decode()
                elif line.startswith(b"data: "):
                    if listener.take(event_id, json.loads(line[6:])):
                        return True
                    if until is not None and len(listener.ids) >= until:
                        answer.close()
                        return False
        await asyncio.sleep(_PAUSE_SECONDS)
        return False
