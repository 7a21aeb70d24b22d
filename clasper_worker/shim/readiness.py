"""Whether turns that are sent now will be run: broker, workers, our own Redis and the backend."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from celery import Celery

from clasper_worker.config.names import QUEUES
from clasper_worker.config.settings import Settings
from clasper_worker.shim.backend_probe import backend_answers
from clasper_worker.shim.results import JobRegister

PROBE_SECONDS = 1.8
"""What a probe may take: who asks is to have an answer within two seconds."""

_WORKER_SECONDS = 1.0
_FRESH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """What was found.

    Attributes:
        broker: whether it took a message.
        redis: whether our own state's Redis answers.
        backend: whether the backend does.
        unserved: queues that no worker consumes.
    """

    broker: bool
    redis: bool
    backend: bool
    unserved: tuple[str, ...]

    @property
    def missing(self) -> list[str]:
        """What is not there, in words."""
        parts = [(self.broker, "broker"), (self.redis, "redis"), (self.backend, "backend")]
        found = [name for there, name in parts if not there]
        if self.broker and self.unserved:
            found.append(f"a worker for {', '.join(self.unserved)}")
        return found


@dataclass(slots=True)
class Fleet:
    """What is known of broker and workers so far."""

    broker: bool = False
    unserved: set[str] = field(default_factory=lambda: set(QUEUES))


class ReadinessProbe:
    """Asks all of them at once; whoever asks meanwhile, or right after, gets the same answer.

    Args:
        settings: where they are.
        app: an app on the broker.
        register: has our own state's Redis.
    """

    def __init__(self, settings: Settings, app: Celery, register: JobRegister) -> None:
        self._settings = settings
        self._app = app
        self._register = register
        self._asking: asyncio.Task[Readiness] | None = None
        self._asked_workers: asyncio.Task[None] | None = None
        self._fleet = Fleet()
        self._found: tuple[Readiness, float] | None = None

    async def ask(self) -> Readiness:
        """What is there, in `PROBE_SECONDS` at most."""
        if self._found is not None and time.monotonic() - self._found[1] < _FRESH_SECONDS:
            return self._found[0]
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Readiness:
        fleet, redis, backend = await asyncio.gather(
            self._workers(),
            within(self._register.reachable(), PROBE_SECONDS),
            backend_answers(self._settings, PROBE_SECONDS),
        )
        unserved = tuple(name for name in QUEUES if name in fleet.unserved)
        found = Readiness(fleet.broker, bool(redis), backend, unserved)
        self._found = (found, time.monotonic())
        return found

    async def _workers(self) -> Fleet:
        # One thread at a time: a broker that hangs holds it for longer than anybody waits.
        if self._asked_workers is None or self._asked_workers.done():
            self._fleet = Fleet()
            self._asked_workers = asyncio.create_task(
                asyncio.to_thread(ask_workers, self._app, _WORKER_SECONDS, self._fleet)
            )
        await asyncio.wait({self._asked_workers}, timeout=PROBE_SECONDS)
        return self._fleet


async def within(answer: Any, seconds: float) -> Any:
    """What an awaitable gives, or None when the time is up."""
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError:
        return None


class _AllServedError(Exception):
    """Every queue has a worker: no more answers are waited for."""


def ask_workers(app: Celery, seconds: float, fleet: Fleet) -> None:
    """Ask the workers what they consume, and note it as they answer.

    Args:
        app: an app on the broker.
        seconds: for answers; over Redis kombu may take a second more.
        fleet: where it is noted.
    """

    def hear(reply: dict[str, Any]) -> None:
        for queues in reply.values():
            if isinstance(queues, list):
                fleet.unserved.difference_update(queue.get("name") for queue in queues)
        if not fleet.unserved:
            raise _AllServedError

    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=seconds)
            fleet.broker = True
            app.control.broadcast(
                "active_queues", reply=True, timeout=seconds, callback=hear, connection=connection
            )
    except _AllServedError:
        pass
    except Exception:  # noqa: BLE001 - of whichever broker: it is not there for us
        fleet.broker = False
