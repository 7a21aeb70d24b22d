"""How the stack knows that a process is ready: one small check a kind of server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx2
import redis
from kombu import Connection
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from clasper_worker.config.settings import Settings
from clasper_worker.devkit.local_stack.ports import LOOPBACK
from clasper_worker.devkit.local_stack.redis_binary import MINIMUM_VERSION, version_numbers
from clasper_worker.devkit.local_stack.redis_server import answers_ping
from clasper_worker.engine.queue.scheduler import SCHEDULED
from clasper_worker.engine.redis.connections import blocking_client, shown_url
from clasper_worker.errors import ConfigurationError, StackError

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
    """Celery workers answer ``inspect ping``.

    Attributes:
        broker_url: where to ask; may hold a password.
        node: the worker's node name, ``name@host``; those of a group are ``name-1@host`` and on.
        processes: how many must answer.
    """

    broker_url: str = field(repr=False)
    node: str
    processes: int = 1

    async def __call__(self, pid: int) -> bool:
        """Whether they answer."""
        del pid
        return await asyncio.to_thread(self._ping)

    def _ping(self) -> bool:
        from celery import Celery  # noqa: PLC0415 - slow to load, and only this probe needs it

        with Celery(broker=self.broker_url, set_as_current=False) as app:
            try:
                # A connection of its own: a pooled one may lead to a Redis that is gone.
                with app.connection_for_write() as connection:
                    answers = app.control.broadcast(
                        "ping",
                        reply=True,
                        timeout=_SECONDS,
                        limit=self.processes,
                        pattern=f"{self.node.partition('@')[0]}[-@]*",
                        matcher="glob",
                        connection=connection,
                    )
            except Exception:  # noqa: BLE001 - each transport has its own kinds; all mean: not now
                return False
        return len(answers or ()) >= self.processes


_ANSWER_SECONDS = 5.0


def check_broker(url: str, settings: Settings) -> None:
    """Connect once to the broker at this URL.

    Args:
        url: of any kind.
        settings: say what the URL of Sentinels does not.

    Raises:
        ConfigurationError: a URL of Sentinels cannot be read.
        StackError: it does not answer, refuses us, or is a Redis older than 6.2.
    """
    shown = shown_url(url)
    try:
        if url.startswith(SCHEDULED):
            _check_redis(url, shown, settings)
        else:
            with Connection(url, connect_timeout=_ANSWER_SECONDS) as connection:
                connection.ensure_connection(
                    max_retries=1, interval_start=0, timeout=_ANSWER_SECONDS
                )
    except (StackError, ConfigurationError):
        raise
    except Exception as exc:  # each transport has its own kinds
        raise StackError(
            f"The broker in CELERY_BROKER_URL ({shown}) cannot be used: {_reason(exc)}. "
            f"Start it, correct the URL, or unset it to let `clasper up` run a Redis of its own.",
            {"variable": "CELERY_BROKER_URL"},
        ) from exc


def _check_redis(url: str, shown: str, settings: Settings) -> None:
    client: Any = blocking_client(
        url,
        settings,
        socket_timeout=_ANSWER_SECONDS,
        socket_connect_timeout=_ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        client.ping()
        version = str(client.info("server").get("redis_version", ""))
    finally:
        client.close()
    if version and version_numbers(version) < MINIMUM_VERSION:
        raise StackError(
            f"The broker in CELERY_BROKER_URL ({shown}) is Redis {version}; Celery needs 6.2 "
            f"or newer.",
            {"variable": "CELERY_BROKER_URL", "version": version},
        )


def _reason(exc: Exception) -> str:
    """The kind of failure; the text of some has the URL, and so the password, in it."""
    if isinstance(exc, redis.AuthenticationError):
        return "it refuses the password"
    if isinstance(exc, redis.TimeoutError | TimeoutError):
        return "it does not answer in time"
    if isinstance(exc, redis.ConnectionError | OperationalError | OSError):
        return "no connection"
    return type(exc).__name__
