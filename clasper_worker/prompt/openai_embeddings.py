"""Embeddings from OpenAI's API, or any server that speaks it, through the ``openai`` client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import openai
from openai import AsyncOpenAI, OpenAI

from clasper_worker.http_redirects import is_redirect
from clasper_worker.prompt.embedding import EmbeddingError, content_key, unit_rows

if TYPE_CHECKING:
    from clasper_worker.prompt.embedding import Vector, Vectors

DEFAULT_MODEL = "text-embedding-3-small"

MAX_INPUT_CHARS = 6_000
"""Characters of a text that are embedded; the API takes 8,191 tokens."""

QUERY_SECONDS = 3.0
"""A turn waits this long for its message's vector, and then ranks by words."""

_BATCH = 64
_MESSAGES_KEPT = 256
_LASTING = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)


class OpenAIEmbedder:
    """See `clasper_worker.prompt.embedding.Embedder`.

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
