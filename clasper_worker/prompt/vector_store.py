"""Document vectors in Redis, so that restarts and other workers need not embed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import redis
import structlog
from redis.exceptions import RedisError

TTL_SECONDS = 30 * 24 * 3600
_BATCH = 200

log = structlog.get_logger(__name__)


class RedisVectorStore:
    """See `clasper_worker.prompt.embedding.VectorStore`. Blocks: for background threads.

    Where Redis does not answer, vectors are embedded again, and nothing else happens.

    Args:
        client: our own state's Redis.
        ttl_seconds: how long a vector is kept.
    """

    def __init__(self, client: redis.Redis, *, ttl_seconds: int = TTL_SECONDS) -> None:
        self._redis = client
        self._ttl = ttl_seconds

    def get(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """See `VectorStore.get`."""
        found: list[bytes | None] = []
        try:
            for start in range(0, len(keys), _BATCH):
                names = [_name(key) for key in keys[start : start + _BATCH]]
                found += cast("list[bytes | None]", self._redis.mget(names))
        except (RedisError, OSError) as exc:
            log.warning("vectors.not_read", error=type(exc).__name__)
            return [None] * len(keys)
        return found

    def put(self, vectors: Mapping[str, bytes]) -> None:
        """See `VectorStore.put`."""
        items = list(vectors.items())
        try:
            for start in range(0, len(items), _BATCH):
                with self._redis.pipeline(transaction=False) as pipe:
                    for key, vector in items[start : start + _BATCH]:
                        pipe.set(_name(key), vector, ex=self._ttl)
                    pipe.execute()
        except (RedisError, OSError) as exc:
            log.warning("vectors.not_kept", error=type(exc).__name__)


def _name(key: str) -> str:
    return f"clasper:vector:{key}"
