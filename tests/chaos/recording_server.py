"""What the recording model and backend share: a port that can go down, faults, control.

Two ports: the one that workers call, whose behaviour can be spoilt, and one for the harness.
Control: ``POST /fault``, ``POST /trap``, ``GET /trap`` (waits until sprung), ``POST /release``,
``GET /counts``, ``GET /records``.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import struct
import sys
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from aiohttp import web

from tests.chaos.traps import Trap, Traps

HOST = "127.0.0.1"
_MAX_BODY = 16 * 2**20

FaultKind = Literal["none", "down", "error", "rate_limit", "slow", "reset", "half", "stored_error"]


@dataclass(frozen=True, slots=True)
class Fault:
    """How the server behaves badly.

    Attributes:
        kind: ``down``: refuses connections and drops those there are; ``error``: 500;
            ``rate_limit``: 429; ``slow``: answers late; ``reset``: does what was asked, then
            resets the connection in the middle of the answer; ``half``: does what was asked,
            answers half and closes; ``stored_error``: does what was asked, and answers 500.
        share: of the calls that it strikes.
        seconds: for ``slow``, how late; for ``rate_limit``, its Retry-After.
        only: the endpoint whose calls it strikes; all for none.
        stored: of ``error``, the share that is a ``stored_error``.
    """

    kind: FaultKind = "none"
    share: float = 1.0
    seconds: float = 0.0
    only: str = ""
    stored: float = 0.0


class Recorder(Protocol):
    """What a server of one kind adds."""

    async def handle(self, request: web.Request, server: RecordingServer) -> web.StreamResponse:
        """Answer one call, and remember it."""
        ...

    def counts(self) -> dict[str, Any]:
        """A few numbers, cheap: whether anything moves."""
        ...

    def records(self) -> dict[str, Any]:
        """Everything that was remembered."""
        ...


class RecordingServer:
    """One server process's inside."""

    def __init__(self, recorder: Recorder, *, seed: int = 0) -> None:
        self.traps = Traps()
        self.fault = Fault()
        self.struck = 0
        self.open_calls = 0
        self._recorder = recorder
        self._random = random.Random(seed)
        self._runner: web.AppRunner | None = None
        self._control: web.AppRunner | None = None
        self._site: web.SockSite | None = None
        self._transports: set[asyncio.Transport] = set()
        self._port = 0

    async def start(self) -> tuple[int, int]:
        """Open both ports; returns them, the public one first."""
        public = web.Application(client_max_size=_MAX_BODY)
        public.router.add_route("*", "/{path:.*}", self._serve)
        # A call whose client has gone is cancelled, which is how the end of a killed worker shows.
        self._runner = web.AppRunner(
            public, access_log=None, handler_cancellation=True, handle_signals=False
        )
        await self._runner.setup()
        await self._listen()
        control = web.Application()
        control.add_routes(
            [
                web.post("/fault", self._set_fault),
                web.post("/trap", self._arm),
                web.get("/trap", self._wait_for_trap),
                web.post("/release", self._release),
                web.get("/counts", self._counts),
                web.get("/records", self._records),
            ]
        )
        self._control = web.AppRunner(control, access_log=None)
        await self._control.setup()
        listener = _bind(0)
        await web.SockSite(self._control, listener).start()
        return self._port, int(listener.getsockname()[1])

    async def close(self) -> None:
        """Close both ports and every connection."""
        self.traps.release()
        for runner in (self._runner, self._control):
            if runner is not None:
                await runner.cleanup()

    def strikes(self, endpoint: str = "") -> Fault:
        """The fault that this call suffers, by chance where its share is below 1."""
        fault = self.fault
        if fault.kind == "none" or (fault.only and fault.only != endpoint):
            return Fault()
        if fault.share < 1 and self._random.random() >= fault.share:
            return Fault()
        self.struck += 1
        if fault.kind == "error" and self._random.random() < fault.stored:
            return replace(fault, kind="stored_error")
        return fault

    async def break_off(
        self, request: web.Request, body: bytes, content_type: str, *, reset: bool
    ) -> web.StreamResponse:
        """Send the first half of an answer, then reset or close the connection."""
        headers = {"Content-Type": content_type, "Content-Length": str(len(body))}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        self.drop(request, reset=reset)
        return response

    def drop(self, request: web.Request, *, reset: bool = False) -> None:
        """End the connection of a call."""
        transport = request.transport
        if transport is None:
            return
        if reset:
            _close_by_reset(transport)
            transport.abort()
        else:
            transport.close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            self._transports.add(request.transport)
        self.open_calls += 1
        try:
            return await self._recorder.handle(request, self)
        finally:
            self.open_calls -= 1

    async def _listen(self) -> None:
        listener = _bind(self._port)
        self._port = int(listener.getsockname()[1])
        assert self._runner is not None
        self._site = web.SockSite(self._runner, listener, backlog=4096)
        await self._site.start()

    async def _set_fault(self, request: web.Request) -> web.Response:
        was_down = self.fault.kind == "down"
        self.fault = Fault(**await request.json())
        if self.fault.kind == "down" and not was_down and self._site is not None:
            server = self._site._server
            assert server is not None
            server.close()
            for transport in list(self._transports):
                _close_by_reset(transport)
                transport.abort()
            self._transports.clear()
            await self._site.stop()
        elif was_down and self.fault.kind != "down":
            await self._listen()
        return web.json_response({"struck": self.struck})

    async def _arm(self, request: web.Request) -> web.Response:
        self.traps.arm(Trap(**await request.json()))
        return web.json_response({})

    async def _wait_for_trap(self, request: web.Request) -> web.Response:
        return web.json_response(await self.traps.sprung(float(request.query["seconds"])))

    async def _release(self, request: web.Request) -> web.Response:
        del request
        self.traps.release()
        return web.json_response({})

    async def _counts(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({**self._recorder.counts(), "struck": self.struck})

    async def _records(self, request: web.Request) -> web.Response:
        del request
        return web.json_response(self._recorder.records())


def worker_of(request: web.Request) -> tuple[str, str]:
    """Who calls, and the path without that: each worker's base URL has ``/w/NAME``."""
    path = request.path
    if path.startswith("/w/"):
        _, _, name, rest = path.split("/", 3)
        return name, f"/{rest}"
    return "?", path


def serve(recorder: Recorder) -> None:
    """Serve until standard input ends, which is when the harness has; prints the ports as JSON."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    server = RecordingServer(recorder, seed=int(os.environ.get("CHAOS_SEED", "0")))
    port, control = loop.run_until_complete(server.start())
    print(json.dumps({"port": port, "control": control}), flush=True)  # noqa: T201 - the protocol
    loop.add_reader(sys.stdin.fileno(), lambda: os.read(sys.stdin.fileno(), 4096) or loop.stop())
    loop.run_forever()


def _bind(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    return listener


def _close_by_reset(transport: asyncio.BaseTransport) -> None:
    """Have the connection's end be a reset (RST), by lingering for no time (socket(7))."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
