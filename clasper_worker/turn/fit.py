"""A conversation fitted to its model's window: the oldest exchanges go first, each as a whole.

An exchange is a message of the user's and all that follows it up to the next one: so an answer
never stands without its question, nor a tool's result without its call. System messages in the
history stay: a summary of what was compacted is one. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clasper_worker.llm.messages import ChatMessage
from clasper_worker.llm.tokens import TokenCounter, estimated
from clasper_worker.llm.windows import ModelWindow

_CLEARLY = 0.5
# Up to this part of what fits, an estimate is enough: none is off by half.

_MARGIN = 0.95
# What fits is taken for a little less than it is: counts are not exact.

_STEPS = 10
# Exchanges go in steps of a tenth of the window, so that the next turns begin with the same history
# and the provider's prompt cache holds it, instead of one exchange less at each turn.

_LONG_STEPS = 4
# A history shorter than this many steps loses what must go alone.


_AFTER_REFUSAL = 0.8
# Of what the provider says that it takes: the conversation grows within the turn.

_UNKNOWN_LIMIT = 0.4


@dataclass(frozen=True, slots=True)
class FittedHistory:
    """The history as it is sent.

    Attributes:
        messages: those that stay, in their order.
        dropped: how many were left out.
        estimate: tokens of all that is sent, tools included, by the estimate alone.
    """

    messages: tuple[ChatMessage, ...] = field(repr=False)
    dropped: int
    estimate: int


def fit_history(
    history: Sequence[ChatMessage],
    *,
    fixed: Sequence[ChatMessage],
    tools: int,
    window: ModelWindow,
) -> FittedHistory:
    """Leave out the oldest exchanges, as many as must be.

    Args:
        history: the conversation before the newest message, oldest first.
        fixed: what is sent in any case: the system prompt and the newest message.
        tools: tokens that telling the model of its tools takes.
        window: what the model can take.
    """
    estimate = tools + sum(map(estimated, fixed)) + sum(map(estimated, history))
    limit = int((window.tokens - window.reply_tokens) * _MARGIN)
    if estimate <= limit * _CLEARLY:
        return FittedHistory(tuple(history), 0, estimate)
    count = window.counter.count
    needed = tools + sum(map(count, fixed)) + sum(map(count, history)) - limit
    if needed <= 0:
        return FittedHistory(tuple(history), 0, estimate)
    step = max(1, window.tokens // _STEPS)
    long = sum(map(count, history)) > _LONG_STEPS * step
    to_drop = -(-needed // step) * step if long else needed
    kept: list[ChatMessage] = []
    dropped = 0
    for exchange in exchanges(history):
        going = [message for message in exchange if message.role != "system"]
        if to_drop > 0 and going:
            to_drop -= sum(map(count, going))
            dropped += len(going)
            estimate -= sum(map(estimated, going))
            kept += [message for message in exchange if message.role == "system"]
        else:
            kept += exchange
    return FittedHistory(tuple(kept), dropped, estimate)


def window_by_refusal(fitted: FittedHistory, details: Mapping[str, Any]) -> ModelWindow:
    """The window to fit the history to once more, after a provider said that it was too long.

    In tokens by the estimate alone: what the counts were learned from has proved wrong.

    Args:
        fitted: the history as it was sent.
        details: the error's; ``limit`` and ``requested`` in the provider's own tokens, if known.
    """
    limit, requested = details.get("limit"), details.get("requested")
    if limit and requested:
        part = limit / requested * _AFTER_REFUSAL
    elif limit:
        part = min(limit / fitted.estimate * _AFTER_REFUSAL, _UNKNOWN_LIMIT)
    else:
        part = _UNKNOWN_LIMIT
    return ModelWindow(int(fitted.estimate * part / _MARGIN), 0, TokenCounter())


def exchanges(history: Sequence[ChatMessage]) -> Iterator[list[ChatMessage]]:
    """Cut a conversation before each message of the user's."""
    current: list[ChatMessage] = []
    for message in history:
        if message.role == "user" and current:
            yield current
            current = []
        current.append(message)
    if current:
        yield current


def window_warning(
    fitted: FittedHistory, used_tokens: int, window: ModelWindow, threshold: int
) -> str | None:
    """What the caller should know of the window, or None.

    Args:
        fitted: the history as it was sent.
        used_tokens: prompt and reply of the last model call, by the provider; 0: not given.
        window: of the turn's model.
        threshold: percent of the window from which on to warn (CLASPER_CONTEXT_WARNING_THRESHOLD).
    """
    parts = []
    percent = (used_tokens or fitted.estimate) * 100 // window.tokens
    if percent >= threshold:
        parts.append(
            f"the conversation fills {percent}% of the model's {window.tokens:,} tokens: compact it"
        )
    if fitted.dropped:
        parts.append(f"{fitted.dropped} older messages did not fit and were left out")
    return "; ".join(parts) or None
