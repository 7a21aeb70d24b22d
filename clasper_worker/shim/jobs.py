"""Which jobs this deployment's shims have enqueued: their turns, for as long as results last."""

from __future__ import annotations

import asyncio

import redis.asyncio as redis
import structlog

log = structlog.get_logger(__name__)

_CALL_SECONDS = 10.0


class JobRegister:
    """Maps job ids to turn ids in Redis, shared by all shims.

    Celery cannot tell a job that waits in the queue from one that never was; this can. It is an
    aid: where Redis does not answer, jobs go on and only that difference is lost.
    """

    def __init__(self, client: redis.Redis, *, ttl_seconds: int) -> None:
        self._redis = client
        self._ttl = ttl_seconds

    async def add(self, job_id: str, turn_id: str) -> None:
        """Note a job that was enqueued."""
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                await self._redis.set(f"clasper:job:{job_id}", turn_id, ex=self._ttl)
        except (redis.RedisError, OSError, TimeoutError) as exc:
            log.warning("jobs.not_noted", job_id=job_id, error=type(exc).__name__)

    async def turn_id(self, job_id: str) -> str | None:
        """The job's turn, or None for a job that no shim enqueued."""
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                value = await self._redis.get(f"clasper:job:{job_id}")
        except (redis.RedisError, OSError, TimeoutError) as exc:
            log.warning("jobs.not_read", job_id=job_id, error=type(exc).__name__)
            return None
        return value.decode() if isinstance(value, bytes) else value

    async def reachable(self) -> bool:
        """Whether Redis answers."""
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                return bool(await self._redis.ping())
        except (redis.RedisError, OSError, TimeoutError):
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
