"""What the models of each tier can take, from the settings and what is known of the models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clasper_worker.config.groups import ModelsGroup
from clasper_worker.llm.providers.catalogue import TIERS, ModelRef, Tier, model_chain
from clasper_worker.llm.tokens import (
    DEFAULT_WINDOW,
    TokenCounter,
    known_window,
    tiktoken_encode,
)

DEFAULT_REPLY_TOKENS = 4_096
"""Kept free for the reply where CLASPER_LLM_MAX_OUTPUT_TOKENS does not say, but at most an eighth
of the window."""


# Of what was refused as too long, where the provider does not say what it takes.


@dataclass(frozen=True, slots=True)
class ModelWindow:
    """What a turn's model can take.

    Attributes:
        tokens: prompt and reply together.
        reply_tokens: kept free for the reply.
        counter: counts for this model.
    """

    tokens: int
    reply_tokens: int
    counter: TokenCounter


def model_windows(settings: ModelsGroup) -> Mapping[Tier, ModelWindow]:
    """The window of each tier; blocks while it loads what is known of models.

    Of a tier with a fallback model it is the smaller one: the conversation must fit either.

    Raises:
        ConfigurationError: a model's name cannot be used.
    """
    counters: dict[ModelRef, TokenCounter] = {}
    windows = {}
    for tier in TIERS:
        refs = model_chain(settings, tier)
        first = refs[0]
        if first not in counters:
            counters[first] = TokenCounter(tiktoken_encode(first.name))
        tokens = settings.clasper_context_window_tokens or min(
            known_window(ref) or DEFAULT_WINDOW for ref in refs
        )
        reply = settings.clasper_llm_max_output_tokens or DEFAULT_REPLY_TOKENS
        windows[tier] = ModelWindow(tokens, min(reply, tokens // 8), counters[first])
    return windows


def unknown_window(_: object = None) -> ModelWindow:
    """The window of a model of which nothing is known."""
    return ModelWindow(DEFAULT_WINDOW, DEFAULT_WINDOW // 32, TokenCounter())
