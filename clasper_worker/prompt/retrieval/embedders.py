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

import openai
from openai import AsyncOpenAI, OpenAI

from clasper_worker.engine.http.redirects import is_redirect
from clasper_worker.prompt.retrieval.embedding import EmbeddingError, content_key, unit_rows

if TYPE_CHECKING:
    from clasper_worker.prompt.retrieval.embedding import Vector, Vectors


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
    """See `clasper_worker.prompt.retrieval.embedding.Embedder`.

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


DEFAULT_MODEL = "text-embedding-3-small"
MAX_INPUT_CHARS = 6_000
"""Characters of a text that are embedded; the API takes 8,191 tokens."""
QUERY_SECONDS = 3.0
"""A turn waits this long for its message's vector, and then ranks by words."""
_BATCH = 64
_MESSAGES_KEPT = 256
_LASTING = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)


class OpenAIEmbedder:
    """See `clasper_worker.prompt.retrieval.embedding.Embedder`.

    Args:
        client: for a turn's message; bound to the turn's event loop.
        open_client: makes a client that blocks, for the background; closed after use.
        model: the embedding model's name.
    """

    def __init__(
        self, client: AsyncOpenAI, open_client: Callable[[], OpenAI], model: str = DEFAULT_MODEL
    ) -> None:
        self._client = client
        self._open_client = open_client
        self._model = model
        self._asked_before: dict[str, Vector] = {}  # by digest, the oldest first
        self.name = f"openai:{model}"

    def documents(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.documents`."""
        rows: list[Sequence[float]] = []
        try:
            with self._open_client() as client:
                for start in range(0, len(texts), _BATCH):
                    batch = texts[start : start + _BATCH]
                    answer = client.embeddings.create(**self._asked(batch))
                    rows += _rows(answer.data, len(batch))
        except openai.OpenAIError as exc:
            raise self._translated(exc) from exc
        return unit_rows(rows)

    async def query(self, text: str) -> Vector:
        """See `Embedder.query`. A message that was just embedded is not embedded again."""
        key = content_key(self.name, text)
        if (known := self._asked_before.get(key)) is not None:
            return known
        client = self._client.with_options(timeout=QUERY_SECONDS, max_retries=0)
        try:
            answer = await client.embeddings.create(**self._asked((text,)))
        except openai.OpenAIError as exc:
            raise self._translated(exc) from exc
        row: Vector = unit_rows(_rows(answer.data, 1))[0]
        if len(self._asked_before) >= _MESSAGES_KEPT:
            self._asked_before.pop(next(iter(self._asked_before)))
        self._asked_before[key] = row
        return row

    def _asked(self, texts: Sequence[str]) -> dict[str, Any]:
        # An empty input is refused, and not every compatible server knows the base64 format.
        inputs = [text[:MAX_INPUT_CHARS].strip() or "-" for text in texts]
        return {"model": self._model, "input": inputs, "encoding_format": "float"}

    def _translated(self, exc: openai.OpenAIError) -> EmbeddingError:
        status = ""
        if isinstance(exc, openai.APIStatusError):
            status = f", HTTP {exc.status_code}"
            if is_redirect(exc.status_code):
                status += ": redirects are not followed, set OPENAI_BASE_URL"
        return EmbeddingError(
            f"The embedding model {self._model!r} (CLASPER_EMBEDDING_MODEL) could not be asked:"
            f" {type(exc).__name__}{status}",
            lasting=isinstance(exc, _LASTING)
            or (isinstance(exc, openai.APIStatusError) and is_redirect(exc.status_code)),
        )


def _rows(data: Sequence[Any], count: int) -> list[Sequence[float]]:
    rows: list[Sequence[float]] = [item.embedding for item in sorted(data, key=_index)]
    if len(rows) != count:
        raise EmbeddingError(f"The embedding model gave {len(rows)} vectors for {count} texts")
    return rows


def _index(item: Any) -> int:
    index: int = item.index
    return index
