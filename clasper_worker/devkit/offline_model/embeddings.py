"""Embeddings as OpenAI's API gives them, by counting the parts of words: a stand-in, no model.

Texts that share words are similar, as with a real model; texts that mean the same in other words
are not. Source of the form: https://platform.openai.com/docs/api-reference/embeddings/create.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections import Counter
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from clasper_worker.devkit.offline_model.protocol import DEFAULT_MODEL, Wire, validated
from clasper_worker.llm.token_estimate import estimate_tokens
from clasper_worker.prompt.retrieval.lexical import terms

DIMENSIONS = 512
_MAX_INPUTS = 2048


class EmbeddingRequest(Wire):
    """One request; token numbers as input are not supported."""

    input: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        Field(min_length=1, max_length=_MAX_INPUTS),
    ]
    encoding_format: Literal["float", "base64"] = "float"

    @field_validator("input", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


def embed(data: dict[str, Any]) -> dict[str, Any]:
    """Answer one request.

    Raises:
        InvalidRequestError: it is not one that the API would take.
    """
    request = validated(EmbeddingRequest, data)
    tokens = sum(estimate_tokens(text) for text in request.input)
    return {
        "object": "list",
        "model": DEFAULT_MODEL,
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": _encoded(vector(text), request.encoding_format),
            }
            for index, text in enumerate(request.input)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def vector(text: str) -> list[float]:
    """The text as a vector of length 1: its words' parts, hashed, counted and damped."""
    values = [0.0] * DIMENSIONS
    for term, count in Counter(terms(text)).items():
        place, sign = _place(term)
        values[place] += sign * (1 + math.log(count))
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / length for value in values]


@lru_cache(maxsize=65_536)
def _place(term: str) -> tuple[int, int]:
    digest = hashlib.blake2b(term.encode(), digest_size=4).digest()
    number = int.from_bytes(digest, "big")
    return (number >> 1) % DIMENSIONS, 1 if number & 1 else -1


def _encoded(values: list[float], encoding: str) -> list[float] | str:
    if encoding == "float":
        return values
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
