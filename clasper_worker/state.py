"""Redis as our own short-lived state: one way to connect to it, and locks in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import redis.asyncio as redis
from redis.exceptions import LockError, RedisError

from clasper_worker.errors import ConfigurationError, StateUnavailableError

_LOCK_SECONDS = 30.0
_CONNECTIONS = 32
_WAIT_SECONDS = 60.0
_SOCKET_SECONDS = 10.0


def redis_client(url: str) -> redis.Redis:
    """A client whose callers wait for one of a few connections.

    Each call is short, so that few serve thousands of turns; redis-py's default pool would fail
    the hundred-and-first caller instead.

    Raises:
        ConfigurationError: the address is not one of Redis.
    """
    try:
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=_WAIT_SECONDS,
            socket_timeout=_SOCKET_SECONDS,
        )
    except ValueError as exc:
        raise ConfigurationError(
            "CLASPER_REDIS_URL is not a Redis address: set it to redis://HOST:PORT/DB",
            {"variable": "CLASPER_REDIS_URL"},
        ) from exc
    return redis.Redis.from_pool(pool)


def redis_lock(
    client: redis.Redis, *, seconds: float = _LOCK_SECONDS, patience: float | None = None
) -> Callable[[str], AbstractAsyncContextManager[object]]:
    """Named locks shared by all workers, each held for ``seconds`` at most.

    Whoever holds one may be waiting for a backend that is down, so that the others are to wait for
    as long as it: for ``patience`` seconds, else twice the time that the lock is held at most.
    Entering raises `StateUnavailableError` where Redis does not answer or the lock stays taken.
    """

    @asynccontextmanager
    async def lock(name: str) -> AsyncIterator[object]:
        held = client.lock(
            f"clasper:lock:{name}",
            timeout=seconds,
            blocking_timeout=patience or seconds * 2,
            sleep=0.02,
        )
        try:
            if not await held.acquire():
                raise StateUnavailableError(f"The lock {name} stayed taken", {"lock": name})
        except RedisError as exc:
            raise StateUnavailableError(
                f"Redis did not answer ({type(exc).__name__}): check CLASPER_REDIS_URL"
            ) from exc
        try:
            yield held
        finally:
            try:
                await held.release()
            except LockError:
                pass  # it ran out while held; the idempotency key still keeps the task single
            except RedisError:
                pass  # it will run out by itself

    return lock
