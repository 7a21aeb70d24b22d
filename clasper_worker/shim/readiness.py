"""Whether turns that are sent now will be run: broker, workers, our own Redis and the backend."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from celery import Celery

from clasper_worker.config.names import QUEUES
from clasper_worker.config.settings import Settings
from clasper_worker.shim.backend_probe import backend_answers
from clasper_worker.shim.results import JobRegister

PROBE_SECONDS = 1.8
"""What a probe may take: who asks is to have an answer within two seconds."""

_WORKER_SECONDS = 1.2
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
        self._asked_workers: asyncio.Task[tuple[bool, tuple[str, ...]]] | None = None
        self._found: tuple[Readiness, float] | None = None

    async def ask(self) -> Readiness:
        """What is there, in `PROBE_SECONDS` at most."""
        if self._found is not None and time.monotonic() - self._found[1] < _FRESH_SECONDS:
            return self._found[0]
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Readiness:
        workers, redis, backend = await asyncio.gather(
            self._workers(),
            within(self._register.reachable(), PROBE_SECONDS),
            backend_answers(self._settings, PROBE_SECONDS),
        )
        found = Readiness(workers[0], bool(redis), backend, workers[1])
        self._found = (found, time.monotonic())
        return found

    async def _workers(self) -> tuple[bool, tuple[str, ...]]:
        # One thread at a time: a broker that hangs holds it for longer than anybody waits.
        if self._asked_workers is None or self._asked_workers.done():
            self._asked_workers = asyncio.create_task(
                asyncio.to_thread(ask_workers, self._app, _WORKER_SECONDS)
            )
        asked = self._asked_workers
        done, _ = await asyncio.wait({asked}, timeout=PROBE_SECONDS)
        return asked.result() if done else (False, QUEUES)


async def within(answer: Any, seconds: float) -> Any:
    """What an awaitable gives, or None when the time is up."""
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError:
        return None


class _AllServedError(Exception):
    """Every queue has a worker: no more answers are waited for."""


def ask_workers(app: Celery, seconds: float) -> tuple[bool, tuple[str, ...]]:
    """Whether the broker takes a message, and which of our queues no worker says to consume."""
    unserved = set(QUEUES)

    def hear(reply: dict[str, Any]) -> None:
        for queues in reply.values():
            if isinstance(queues, list):
                unserved.difference_update(queue.get("name") for queue in queues)
        if not unserved:
            raise _AllServedError

    try:
        app.control.broadcast("active_queues", reply=True, timeout=seconds, callback=hear)
    except _AllServedError:
        pass
    except Exception:  # noqa: BLE001 - of whichever broker: it is not there for us
        return False, QUEUES
    return True, tuple(name for name in QUEUES if name in unserved)
