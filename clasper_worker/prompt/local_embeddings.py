"""Embeddings from a model on this machine, by the ``fastembed`` library (optional extra ``local``).

The library is imported and the model loaded when the first text is embedded, in the background.
Nothing is downloaded: a worker that fetched a model at its start would be at the mercy of another
server. The error for a missing model says how to fetch it once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from clasper_worker.prompt.embedding import EmbeddingError, unit_rows

if TYPE_CHECKING:
    from clasper_worker.prompt.embedding import Vector, Vectors

MAX_TEXT_CHARS = 4_000
"""Characters of a text that are embedded; such models read a few hundred tokens."""

_PREFIXES = ("Xenova/", "sentence-transformers/")


class TextEmbedding(Protocol):
    """What is used of ``fastembed.TextEmbedding``."""

    def embed(self, documents: Sequence[str]) -> Iterable[Any]:
        """One vector for each document."""
        ...

    def query_embed(self, query: str) -> Iterable[Any]:
        """The vector of a query."""
        ...


class LocalEmbedder:
    """See `clasper_worker.prompt.embedding.Embedder`.

    Args:
        model: as in ``CLASPER_EMBEDDING_MODEL``: ``all-MiniLM-L6-v2``, with or without one of the
            organisations under which it is published, or another name that fastembed lists.
        load: makes the model of that name; fastembed's when omitted.
    """

    def __init__(self, model: str, load: Callable[[str], TextEmbedding] | None = None) -> None:
        self._model_name = fastembed_name(model)
        self._load = load or _load_with_fastembed
        self._lock = threading.Lock()
        self._loaded: TextEmbedding | None = None
        self.name = f"local:{self._model_name}"

    def documents(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.documents`."""
        model = self._model()
        try:
            return unit_rows(list(model.embed([text[:MAX_TEXT_CHARS] for text in texts])))
        except Exception as exc:
            raise _failed(self._model_name, exc) from exc

    async def query(self, text: str) -> Vector:
        """See `Embedder.query`; the model computes in a thread."""
        return await asyncio.to_thread(self._query, text)

    def _query(self, text: str) -> Vector:
        model = self._model()
        try:
            row: Vector = unit_rows(list(model.query_embed(text[:MAX_TEXT_CHARS])))[0]
        except Exception as exc:
            raise _failed(self._model_name, exc) from exc
        return row

    def _model(self) -> TextEmbedding:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load(self._model_name)
            return self._loaded


def fastembed_name(model: str) -> str:
    """The name under which fastembed knows a model.

    ``Xenova/all-MiniLM-L6-v2`` and ``all-MiniLM-L6-v2`` are its
    ``sentence-transformers/all-MiniLM-L6-v2``; other names stay.
    """
    bare = model.strip()
    for prefix in _PREFIXES:
        bare = bare.removeprefix(prefix)
    return f"sentence-transformers/{bare}" if "/" not in bare else bare


def _load_with_fastembed(model: str) -> TextEmbedding:
    try:
        import fastembed  # noqa: PLC0415 - an optional library, and slow to import
    except ImportError as exc:
        raise EmbeddingError(
            "CLASPER_EMBEDDING_PROVIDER=local needs the fastembed library:"
            " pip install 'clasper-worker[local]'",
            lasting=True,
        ) from exc
    with suppress(ImportError):
        import loguru  # noqa: PLC0415 - fastembed's own logger, which would write past ours

        loguru.logger.disable("fastembed")
    try:
        loaded: TextEmbedding = fastembed.TextEmbedding(model, local_files_only=True)
    except Exception as exc:
        raise EmbeddingError(
            f"The embedding model {model!r} (CLASPER_EMBEDDING_MODEL) is not on this machine, or"
            f" fastembed does not know it ({type(exc).__name__}). Fetch it once, with the same"
            " FASTEMBED_CACHE_PATH as the worker: python -c"
            f" \"import fastembed; fastembed.TextEmbedding('{model}')\"",
            lasting=True,
        ) from exc
    return loaded


def _failed(model: str, exc: Exception) -> EmbeddingError:
    return EmbeddingError(f"The embedding model {model!r} failed ({type(exc).__name__})")
