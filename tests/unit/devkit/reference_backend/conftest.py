"""A reference backend in this process, and clients with each kind of token."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import jwt
import pytest
from fastapi import FastAPI

from clasper_worker.devkit.reference_backend import BackendConfig, create_app

SECRET = "a-secret-of-the-tests-with-more-than-32-bytes"
INTERNAL = "an-internal-token"


@dataclass(frozen=True)
class Event:
    id: str
    event: str
    data: dict[str, Any]


class Stream:
    """An event stream that is being read: the ASGI app, driven without a server."""

    def __init__(self, app: FastAPI, headers: Mapping[str, str], query: str) -> None:
        self.status = 0
        self.comments = 0
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._started = asyncio.Event()
        self._text = ""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/api/mission-control/events",
            "raw_path": b"/api/mission-control/events",
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        self._task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._started.set()
        else:
            await self._chunks.put(message.get("body", b""))
            if not message.get("more_body", False):
                await self._chunks.put(b"")

    async def opened(self) -> Stream:
        await asyncio.wait_for(self._started.wait(), 10)
        return self

    async def _read(self) -> bool:
        chunk = await asyncio.wait_for(self._chunks.get(), 10)
        self._text += chunk.decode()
        return bool(chunk)

    async def next(self) -> Event:
        """The next event; comments are counted and skipped."""
        while True:
            while "\r\n\r\n" not in self._text:
                assert await self._read(), "the stream has ended"
            block, self._text = self._text.split("\r\n\r\n", 1)
            if block.startswith(":"):
                self.comments += 1
                continue
            fields = dict(line.split(": ", 1) for line in block.split("\r\n"))
            return Event(fields["id"], fields["event"], json.loads(fields["data"]))

    async def comment(self) -> None:
        """Wait for a comment line."""
        while not self._text.startswith(":"):
            assert await self._read(), "the stream has ended"

    async def ended(self) -> None:
        """Wait for the end that the server makes."""
        await asyncio.wait_for(asyncio.shield(self._task), 10)

    async def close(self) -> None:
        self._gone.set()
        await asyncio.wait_for(self._task, 10)


class Harness:
    """One app, and clients for it."""

    def __init__(self, config: BackendConfig) -> None:
        self.config = config
        self.app = create_app(config)
        self._clients: list[httpx2.AsyncClient] = []

    def token(self, user_id: str = "u1", role: str = "writer", **claims: Any) -> str:
        claims = {
            "type": "agent",
            "user_id": user_id,
            "agent_role": role,
            "exp": time.time() + 600,
            **claims,
        }
        present = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(present, self.config.agent_jwt_secret, algorithm="HS256")

    def client(self, headers: Mapping[str, str] | None = None) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False)
        client = httpx2.AsyncClient(
            transport=transport, base_url="http://backend", headers=dict(headers or {})
        )
        self._clients.append(client)
        return client

    def agent(self, user_id: str = "u1", role: str = "writer") -> httpx2.AsyncClient:
        return self.client({"X-Agent-Token": self.token(user_id, role)})

    def internal(self) -> httpx2.AsyncClient:
        return self.client({"X-Internal-Token": INTERNAL})

    @asynccontextmanager
    async def events(
        self, user_id: str = "u1", *, last: str | None = None, query: str = "", **claims: Any
    ) -> AsyncIterator[Stream]:
        headers = {"X-Agent-Token": self.token(user_id, **claims)}
        if last is not None:
            headers["Last-Event-ID"] = last
        stream = await Stream(self.app, headers, query).opened()
        try:
            yield stream
        finally:
            await stream.close()

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()
        self.app.state.backend.store.close()


def _harness(**settings: Any) -> Harness:
    defaults = {"agent_jwt_secret": SECRET, "internal_api_token": INTERNAL}
    return Harness(BackendConfig(**{**defaults, **settings}))


@pytest.fixture
async def make_backend() -> AsyncIterator[Callable[..., Harness]]:
    """Make backends; each starts empty, in memory, unless told otherwise."""
    made: list[Harness] = []

    def make(**settings: Any) -> Harness:
        made.append(_harness(**settings))
        return made[-1]

    yield make
    for harness in made:
        await harness.close()


@pytest.fixture
def make_harness() -> Iterator[Callable[..., Harness]]:
    """The same for tests that run event loops of their own, and close their clients."""
    made: list[Harness] = []

    def make(**settings: Any) -> Harness:
        made.append(_harness(**settings))
        return made[-1]

    yield make
    for harness in made:
        harness.app.state.backend.store.close()


@pytest.fixture
def backend(make_backend: Callable[..., Harness]) -> Harness:
    """A backend with everything on."""
    return make_backend()


@pytest.fixture
def agent(backend: Harness) -> httpx2.AsyncClient:
    """A client of the agent "writer" of user u1."""
    return backend.agent()


@pytest.fixture
def internal(backend: Harness) -> httpx2.AsyncClient:
    """A client with the internal token."""
    return backend.internal()


@pytest.fixture
async def task_id(agent: httpx2.AsyncClient) -> str:
    """A task of user u1."""
    answer = await agent.post("/api/mission-control/tasks", json={"title": "A task"})
    found: str = answer.json()["id"]
    return found
