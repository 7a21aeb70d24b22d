"""Ranking by meaning: the interface of an embedding model, and a cache in front of one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

import redis
import structlog
from redis.exceptions import RedisError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]
    Vectors = NDArray[np.float32]


class EmbeddingError(Exception):
    """A text could not be embedded.

    Attributes:
        problem: what is wrong and how to fix it; no part of any text.
        lasting: whether trying again later is of no use.
    """

    def __init__(self, problem: str, *, lasting: bool = False) -> None:
        self.problem = problem
        self.lasting = lasting
        super().__init__(problem)


class Embedder(Protocol):
    """An embedding model. Vectors have length 1, so that a dot product is the cosine.

    Attributes:
        name: provider and model, ``openai:text-embedding-3-small``.
    """

    name: str

    def documents(self, texts: Sequence[str]) -> Vectors:
        """Embed texts, one row each; blocks, so it is called in a background thread.

        Raises:
            EmbeddingError: it cannot be done.
        """
        ...

    async def query(self, text: str) -> Vector:
        """Embed a message, on a turn's path.

        Raises:
            EmbeddingError: it cannot be done, or takes too long.
        """
        ...


class VectorStore(Protocol):
    """Keeps vectors beyond the process. An aid: what it cannot give is embedded again."""

    def get(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """The vector of each key, as little-endian float32, where it is there."""
        ...

    def put(self, vectors: Mapping[str, bytes]) -> None:
        """Keep these vectors."""
        ...


class NoVectorStore:
    """A store that keeps nothing."""

    def get(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """See `VectorStore.get`."""
        return [None] * len(keys)

    def put(self, vectors: Mapping[str, bytes]) -> None:
        """See `VectorStore.put`."""


class CachedDocuments:
    """Embeds each text once, however often it is asked for: vectors are kept by content hash.

    In memory those of the last call, which are what the present workspace says; in ``store`` all.
    Not for several threads at once.

    Args:
        embedder: who embeds what is new.
        store: where vectors are kept for other processes and restarts.
    """

    def __init__(self, embedder: Embedder, store: VectorStore | None = None) -> None:
        self._embedder = embedder
        self._store = store or NoVectorStore()
        self._known: dict[str, Vector] = {}

    def documents(self, texts: Sequence[str]) -> Vectors:
        """The vectors of ``texts``, one row each.

        Raises:
            EmbeddingError: new ones could not be embedded.
        """
        import numpy as np  # noqa: PLC0415 - only workers that embed need it

        keys = [content_key(self._embedder.name, text) for text in texts]
        known = {key: self._known[key] for key in keys if key in self._known}
        unknown = list(dict.fromkeys(key for key in keys if key not in known))
        for key, stored in zip(unknown, self._store.get(unknown), strict=True):
            if stored is not None:
                known[key] = np.frombuffer(stored, "<f4")
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if new:
            vectors = self._embedder.documents(list(new.values()))
            fresh = dict(zip(new, vectors, strict=True))
            self._store.put({key: row.astype("<f4").tobytes() for key, row in fresh.items()})
            known |= fresh
        self._known = known
        return np.stack([known[key] for key in keys])


def content_key(model: str, text: str) -> str:
    """What a vector is kept under: a digest of the model's name and the text."""
    return hashlib.sha256(f"{len(model)}:{model}{text}".encode("utf-8", "replace")).hexdigest()


def unit_rows(values: Sequence[Sequence[float]] | Vectors) -> Vectors:
    """Vectors brought to length 1, one row each; one of length 0 stays."""
    import numpy as np  # noqa: PLC0415 - as above

    rows: Vectors = np.asarray(values, np.float32)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    lengths[lengths == 0] = 1
    scaled: Vectors = (rows / lengths).astype(np.float32)
    return scaled


TTL_SECONDS = 30 * 24 * 3600
_BATCH = 200
log = structlog.get_logger(__name__)


class RedisVectorStore:
    """See `clasper_worker.prompt.retrieval.embedding.VectorStore`. Blocks: for background threads.

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
