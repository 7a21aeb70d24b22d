"""The recording servers inside the test's own process."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from tests.chaos.recording_server import HOST, Recorder, RecordingServer


@dataclass
class Running:
    """A server, a client as workers have, and its control."""

    server: RecordingServer
    client: httpx2.AsyncClient
    control: httpx2.AsyncClient

    async def behave(self, kind: str = "none", **more: Any) -> None:
        (await self.control.post("/fault", json={"kind": kind, **more})).raise_for_status()

    async def arm(self, point: str, **more: Any) -> None:
        (await self.control.post("/trap", json={"point": point, **more})).raise_for_status()

    async def sprung(self, seconds: float = 30.0) -> Any:
        return (await self.control.get("/trap", params={"seconds": seconds}, timeout=60)).json()

    async def records(self) -> Any:
        return (await self.control.get("/records")).json()


Start = Callable[[Recorder], Awaitable[Running]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def begin(recorder: Recorder) -> Running:
            server = RecordingServer(recorder)
            port, control = await server.start()
            stack.push_async_callback(server.close)
            clients = [
                await stack.enter_async_context(
                    httpx2.AsyncClient(base_url=f"http://{HOST}:{number}", timeout=30)
                )
                for number in (port, control)
            ]
            return Running(server, *clients)

        yield begin
