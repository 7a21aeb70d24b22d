"""How the stack knows that a process is ready: one small check a kind of server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

import httpx2

from clasper_worker.local_stack.ports import LOOPBACK
from clasper_worker.local_stack.redis_server import answers_ping

_SECONDS = 2.0


class Probe(Protocol):
    """One look at a process."""

    async def __call__(self, pid: int) -> bool:
        """Whether this process is ready now; False, not an error, while it is not."""
        ...


@dataclass(frozen=True, slots=True)
class RedisAnswers:
    """A Redis server answers, and it is this process where the server can tell."""

    port: int
    tells_pid: bool = True

    async def __call__(self, pid: int) -> bool:
        """Whether it answers."""
        return await asyncio.to_thread(answers_ping, self.port, pid if self.tells_pid else None)


@dataclass(frozen=True, slots=True)
class HttpAnswers:
    """A GET is answered with 200."""

    url: str

    async def __call__(self, pid: int) -> bool:
        """Whether it answers."""
        del pid
        # Not through a proxy from the environment: these are our own addresses.
        async with httpx2.AsyncClient(trust_env=False, timeout=_SECONDS) as client:
            try:
                return (await client.get(self.url)).status_code == 200
            except httpx2.HTTPError:
                return False


@dataclass(frozen=True, slots=True)
class PortListens:
    """A loopback port accepts connections."""

    port: int

    async def __call__(self, pid: int) -> bool:
        """Whether it listens."""
        del pid
        try:
            async with asyncio.timeout(_SECONDS):
                _, writer = await asyncio.open_connection(LOOPBACK, self.port)
        except OSError:
            return False
        writer.close()
        return True


@dataclass(frozen=True, slots=True)
class WorkerAnswers:
    """A Celery worker answers ``inspect ping``, asked by its node name."""

    broker_url: str = field(repr=False)
    node: str

    async def __call__(self, pid: int) -> bool:
        """Whether it answers."""
        del pid
        return await asyncio.to_thread(self._ping)

    def _ping(self) -> bool:
        from celery import Celery  # noqa: PLC0415 - slow to load, and only this probe needs it
        from kombu.exceptions import OperationalError  # noqa: PLC0415

        with Celery(broker=self.broker_url, set_as_current=False) as app:
            try:
                return bool(app.control.ping(destination=[self.node], timeout=1.0))
            except (OperationalError, OSError):
                return False
