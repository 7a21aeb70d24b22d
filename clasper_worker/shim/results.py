"""What the shim answers of jobs: the status of a failure, and whose turn a job is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import redis.asyncio as redis
import structlog

from clasper_worker.streams.keys import job_key
from clasper_worker.turn.journal_store import REQUEST, entries_key

log = structlog.get_logger(__name__)
# Whose fault a failed job was, as a status: the caller's, ours, or (else) a 502 of what we called.
_FAILURE_STATUS = {
    "invalid_request": 400,
    "turn_conflict": 409,
    "cancelled": 409,
    "session_busy": 409,
    "lane_full": 429,
    "turn_timeout": 504,
    "TimeLimitExceeded": 504,
    "configuration": 500,
    "workspace": 500,
    "unexpected": 500,
}


def failure_status(error: Mapping[str, Any]) -> int:
    """The HTTP status for a job's error."""
    if error["details"].get("field") == "task_id":
        return 404
    return _FAILURE_STATUS.get(error["code"], 502)


_CALL_SECONDS = 10.0


class JobRegister:
    """Maps job ids to turn ids in Redis, shared by all shims.

    Celery cannot tell a job that waits in the queue from one that never was; this can. It is an
    aid: where Redis does not answer, jobs go on and only that difference is lost.
    """

    def __init__(self, client: redis.Redis, *, ttl_seconds: int) -> None:
        self._redis = client
        self._ttl = ttl_seconds

    @property
    def redis(self) -> redis.Redis:
        """Our own state's Redis, for what else the shim reads there."""
        return self._redis

    async def add(self, job_id: str, turn_id: str) -> None:
        """Note a job that was enqueued."""
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                await self._redis.set(job_key(job_id), turn_id, ex=self._ttl)
        except (redis.RedisError, OSError, TimeoutError) as exc:
            log.warning("jobs.not_noted", job_id=job_id, error=type(exc).__name__)

    async def turn_id(self, job_id: str) -> str | None:
        """The job's turn, or None for a job that no shim enqueued."""
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                value = await self._redis.get(job_key(job_id))
        except (redis.RedisError, OSError, TimeoutError) as exc:
            log.warning("jobs.not_read", job_id=job_id, error=type(exc).__name__)
            return None
        return value.decode() if isinstance(value, bytes) else value

    async def request_of(self, key: str) -> str | None:
        """The digest of the request that has claimed a turn, by the ledger's key, if any has."""
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                value = await self._redis.hget(entries_key(key), REQUEST)
        except (redis.RedisError, OSError, TimeoutError):
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
