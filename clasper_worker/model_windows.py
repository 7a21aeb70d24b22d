"""What the models of each tier can take, from the settings and what is known of the models."""

from __future__ import annotations

from collections.abc import Mapping

from clasper_worker.llm.catalogue import TIERS, ModelRef, Tier, model_chain
from clasper_worker.llm.tokens import DEFAULT_WINDOW, TokenCounter, known_window, tiktoken_encode
from clasper_worker.settings import Settings
from clasper_worker.turn.fit import ModelWindow

DEFAULT_REPLY_TOKENS = 4_096
"""Kept free for the reply where CLASPER_LLM_MAX_OUTPUT_TOKENS does not say, but at most an eighth
of the window."""


def model_windows(settings: Settings) -> Mapping[Tier, ModelWindow]:
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
