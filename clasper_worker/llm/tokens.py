"""How many tokens messages are for one model, and how many it can take.

Three ways to count, the best that is there: what the provider itself counted, as a ratio to our
estimate that is learned from each turn's first call; tiktoken's encoding, where the library and its
data file are on this machine (it would download the file otherwise, in the middle of a turn); the
estimate of `clasper_worker.llm.token_estimate`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from clasper_worker.llm.messages import ChatMessage, ToolSpec
from clasper_worker.llm.providers.provider import ModelRef
from clasper_worker.llm.token_estimate import estimate_tokens

DEFAULT_WINDOW = 128_000
"""Tokens, for a model whose window is not known."""

MESSAGE_TOKENS = 4
"""What a message takes beside its text: role and separators."""

_SAMPLE_CHARS = 4_000
_LEARNING_RATE = 0.2
_RATIOS = (0.5, 3.0)  # a provider that counts otherwise counts something else
_LEARNED_FROM = 200  # tokens; in less, what the provider adds weighs too much
_TIKTOKEN_URL = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"


class TokenCounter:
    """Counts for one model. Shared by all turns of a worker.

    Args:
        encode: counts a text exactly; None where no encoding is there.
    """

    def __init__(self, encode: Callable[[str], int] | None = None) -> None:
        self._encode = encode
        self._ratio: float | None = None

    @property
    def method(self) -> str:
        """How it counts now: ``provider``, ``tiktoken`` or ``estimate``."""
        if self._ratio is not None:
            return "provider"
        return "estimate" if self._encode is None else "tiktoken"

    def count(self, message: ChatMessage) -> int:
        """The tokens of one message."""
        if self._ratio is not None:
            return math.ceil(estimated(message) * self._ratio)
        if self._encode is None:
            return estimated(message)
        return MESSAGE_TOKENS + sum(self._encode(text) for text in _texts(message))

    def learn(self, estimate: int, counted: int) -> None:
        """Take in what the provider counted for what we had estimated.

        Args:
            estimate: by `estimated` and `tool_tokens`, of all that was sent.
            counted: the provider's prompt tokens; 0 where it gave none.
        """
        if counted <= 0 or estimate < _LEARNED_FROM:
            return
        low, high = _RATIOS
        ratio = min(max(counted / estimate, low), high)
        known = self._ratio
        self._ratio = ratio if known is None else known + _LEARNING_RATE * (ratio - known)


def estimated(message: ChatMessage) -> int:
    """The tokens of one message, estimated from its text."""
    return MESSAGE_TOKENS + sum(estimate_tokens(text) for text in _texts(message))


def _texts(message: ChatMessage) -> Iterable[str]:
    if message.content:
        yield message.content
    for call in message.tool_calls:
        yield call.name
        yield call.arguments


def tool_tokens(tools: Sequence[ToolSpec]) -> int:
    """The tokens that the description of the tools takes, estimated."""
    return sum(
        estimate_tokens(tool.name + tool.description + json.dumps(tool.parameters))
        for tool in tools
    )


@lru_cache(maxsize=256)
def known_window(ref: ModelRef) -> int | None:
    """How many tokens a model takes, reply included, as the genai-prices data has it."""
    # Imported here: its data takes a third of a second to load, once.
    from genai_prices import data_snapshot  # noqa: PLC0415

    snapshot = data_snapshot.get_snapshot()
    try:
        _, model = snapshot.find_provider_model(ref.name, None, ref.provider, None)
    except LookupError:
        return None
    return model.context_window


def tiktoken_encode(model: str) -> Callable[[str], int] | None:
    """Count with tiktoken, where it is installed and has the model's data file here; else None."""
    try:
        import tiktoken  # noqa: PLC0415 - an optional library

        name = tiktoken.encoding_name_for_model(model)
    except (ImportError, KeyError):
        return None
    if not _tiktoken_file(name).is_file():
        return None
    encoding = tiktoken.get_encoding(name)
    return sampled(lambda text: len(encoding.encode_ordinary(text)))


def sampled(encode: Callable[[str], int]) -> Callable[[str], int]:
    """Count a long text by its two ends: all of it would hold the event loop."""

    def count(text: str) -> int:
        if len(text) <= 2 * _SAMPLE_CHARS:
            return encode(text)
        of_ends = encode(text[:_SAMPLE_CHARS]) + encode(text[-_SAMPLE_CHARS:])
        return math.ceil(of_ends * len(text) / (2 * _SAMPLE_CHARS))

    return count


def _tiktoken_file(encoding: str) -> Path:
    """Where tiktoken keeps an encoding that it has downloaded (its own rule, ``tiktoken.load``)."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    root = Path(folder) if folder else Path(tempfile.gettempdir(), "data-gym-cache")
    url = _TIKTOKEN_URL.format(encoding)
    return root / hashlib.sha1(url.encode()).hexdigest()  # noqa: S324 - a file's name, no secret
