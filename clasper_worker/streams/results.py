"""How jobs ended, as the result backend has it, and waiting for that by its announcements."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio as redis
import structlog
from celery import Celery, states
from redis.asyncio.client import PubSub

from clasper_worker.engine.redis.faults import redis_fault, typed_error

log = structlog.get_logger(__name__)
# Celery's Redis backend stores a result under this key and publishes it on a channel of that name.
_PREFIX = "celery-task-meta-"
_LOOK_ANYWAY_SECONDS = 2.0
_LONGEST_LOOK_SECONDS = 10.0  # where announcements come, of a job that takes long
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What the result backend knows of a job.

    Attributes:
        state: Celery's state, such as PENDING, STARTED, SUCCESS, FAILURE, REVOKED.
        result: the turn's result, once it succeeded.
        error: ``{error, code, details}`` once it failed.
    """

    state: str
    result: dict[str, Any] | None = field(default=None, repr=False)
    error: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Whether this is final."""
        return self.state in states.READY_STATES


class JobResults:
    """Reads results, and waits for them without a thread or a connection for each waiter.

    On Redis one connection listens for all waiters; another result backend is polled.
    """

    def __init__(self, app: Celery, result_backend_url: str) -> None:
        self._app = app
        self._is_redis = result_backend_url.startswith(("redis://", "rediss://"))
        self._redis: redis.Redis | None = None
        self._url = result_backend_url
        self._pubsub: PubSub | None = None
        self._listener: asyncio.Task[None] | None = None
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    async def read(self, job_id: str) -> JobOutcome:
        """The job's outcome as it stands; PENDING where the backend knows nothing of it.

        Raises:
            StateUnavailableError: the result backend does not answer.
        """
        try:
            meta = await asyncio.to_thread(self._app.backend.get_task_meta, job_id, cache=False)
        except Exception as exc:
            if redis_fault(exc) is None:
                raise
            raise typed_error(exc, "CELERY_RESULT_BACKEND") from exc
        return _outcome(meta)

    async def wait(self, job_id: str, seconds: float) -> JobOutcome:
        """The job's outcome once it has ended, or as it stands when the time is up."""
        deadline = time.monotonic() + seconds
        event = asyncio.Event()
        self._waiting[job_id].add(event)
        pause = _LOOK_ANYWAY_SECONDS if self._is_redis else _POLL_SECONDS
        try:
            await self._listen(job_id)
            while True:
                event.clear()
                outcome = await self.read(job_id)
                left = deadline - time.monotonic()
                if outcome.ended or left <= 0:
                    return outcome
                if self._listener is not None and self._listener.done():
                    pause = _LOOK_ANYWAY_SECONDS
                    await self._listen(job_id)
                try:
                    async with asyncio.timeout(min(left, pause)):
                        await event.wait()
                except TimeoutError:
                    if self._is_redis:
                        pause = min(pause * 1.5, _LONGEST_LOOK_SECONDS)
        finally:
            self._waiting[job_id].discard(event)
            if not self._waiting[job_id]:
                del self._waiting[job_id]
                await self._unlisten(job_id)

    async def close(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        if self._pubsub is not None:
            await self._pubsub.aclose()
        if self._redis is not None:
            await self._redis.aclose()

    async def _listen(self, job_id: str) -> None:
        if not self._is_redis:
            return
        try:
            if self._pubsub is None:
                # Blocking reads: redis-py's default socket timeout would end them.
                self._redis = redis.Redis.from_url(self._url, socket_timeout=None)
                self._pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
            await self._pubsub.subscribe(f"{_PREFIX}{job_id}")
            if self._listener is None or self._listener.done():
                self._listener = asyncio.create_task(self._hear(self._pubsub))
        except (redis.RedisError, OSError) as exc:
            log.warning("results.cannot_listen", error=type(exc).__name__)

    async def _unlisten(self, job_id: str) -> None:
        if self._pubsub is not None:
            with suppress(redis.RedisError, OSError):
                await self._pubsub.unsubscribe(f"{_PREFIX}{job_id}")

    async def _hear(self, pubsub: PubSub) -> None:
        try:
            while pubsub.subscribed:
                message = await pubsub.get_message(timeout=None)
                if message is None:
                    continue
                channel = message["channel"]
                name = channel.decode() if isinstance(channel, bytes) else channel
                for event in self._waiting.get(name.removeprefix(_PREFIX), ()):
                    event.set()
        except (redis.RedisError, OSError) as exc:
            # The next waiter starts it anew; the present ones look by themselves meanwhile.
            log.warning("results.listener_lost", error=type(exc).__name__)


def _outcome(meta: dict[str, Any]) -> JobOutcome:
    state = str(meta.get("status", states.PENDING))
    result = meta.get("result")
    if state == states.SUCCESS:
        return JobOutcome(state, result=result if isinstance(result, dict) else {"value": result})
    if state in states.EXCEPTION_STATES:
        return JobOutcome(state, error=_error(result, state))
    return JobOutcome(state)


def _error(result: Any, state: str) -> dict[str, Any]:
    """The failure as the contract's error object; Celery gives the exception it rebuilt."""
    code = getattr(result, "code", None) or type(result).__name__
    details = getattr(result, "details", None) or {}
    if state == states.REVOKED:
        return {"error": "The turn was cancelled", "code": "cancelled", "details": {}}
    return {"error": str(result), "code": str(code), "details": details}
