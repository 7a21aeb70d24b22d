"""A broker that may lose what is queued: the worker warns of it when it starts.

Told by INFO, which managed services leave to everybody, where CONFIG is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from clasper_worker.config.groups import QueueGroup
from clasper_worker.engine.redis.connections import blocking_client
from clasper_worker.errors import ClasperError

log = structlog.get_logger(__name__)

_SECONDS = 3.0
_SCHEMES = ("redis://", "rediss://", "sentinel://")


@dataclass(frozen=True, slots=True)
class RedisDoubt:
    """What is wrong with a Redis for queued work.

    Attributes:
        problem: what may happen.
        fix: what to set at the server.
    """

    problem: str
    fix: str


def redis_doubts(info: Mapping[str, Any]) -> tuple[RedisDoubt, ...]:
    """What to warn of.

    Args:
        info: the server's answer to INFO, as redis-py reads it; what it does not tell is not
            doubted.
    """
    return tuple(_doubts(info))


def _doubts(info: Mapping[str, Any]) -> Iterator[RedisDoubt]:
    if info.get("aof_enabled") == 0:
        yield RedisDoubt(
            "this Redis keeps no append-only file: what is queued is lost when it ends",
            "set appendonly yes (and appendfsync everysec)",
        )
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        yield RedisDoubt(
            f"this Redis may evict what is queued when it is full (maxmemory-policy {policy})",
            "set maxmemory-policy noeviction",
        )
    if info.get("cluster_enabled") == 1:
        yield RedisDoubt(
            "this Redis is a cluster, which refuses steps over several keys: no turn will run",
            "use a Redis that is not a cluster, with replicas and Sentinels if it must not fail",
        )


def warn_of_doubtful_redis(settings: QueueGroup) -> None:
    """Log what may lose queued work; nothing where the broker is no Redis or tells nothing."""
    if not settings.celery_broker_url.startswith(_SCHEMES):
        return
    try:
        client: Any = blocking_client(
            settings.celery_broker_url,
            settings,
            socket_timeout=_SECONDS,
            socket_connect_timeout=_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            info = client.info()
        finally:
            client.close()
    except (redis.RedisError, ClasperError, OSError) as exc:
        log.info("broker.not_looked_at", error=type(exc).__name__)
        return
    for doubt in redis_doubts(info):
        log.warning("broker.doubtful", variable="CELERY_BROKER_URL", **asdict(doubt))
