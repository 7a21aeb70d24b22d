"""Doubles for the boundaries of a turn, behind the production interfaces.

For tests of agents and of code that calls the turn. Where a real protocol is wanted instead, the
reference backend (`clasper_worker.devkit.reference_backend`) and the offline model
(`clasper_worker.devkit.offline_model`) speak it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clasper_worker.engine.circuit.breaker import CLEAR, GateState, Transition
from clasper_worker.engine.circuit.store import Change, Reading
from clasper_worker.llm.messages import (
    NO_OPTIONS,
    CallOptions,
    ChatMessage,
    Confirm,
    Listen,
    ModelReply,
    TextPart,
    TokenUsage,
    ToolCall,
    ToolChoice,
    ToolSpec,
)


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One question that a `ScriptedModel` was asked."""

    messages: tuple[ChatMessage, ...] = field(repr=False)
    tools: tuple[ToolSpec, ...]
    tool_choice: ToolChoice
    options: CallOptions = NO_OPTIONS


class ScriptedModel:
    """A model that gives the replies it was made with, in order, and records what it was asked.

    A reply may be an exception, which is raised instead.
    """

    def __init__(self, replies: Iterable[ModelReply | Exception]) -> None:
        self._replies = list(replies)
        self.requests: list[ModelRequest] = []

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolSpec] = (),
        *,
        tool_choice: ToolChoice = "auto",
        confirm: Confirm | None = None,
        listen: Listen | None = None,
        options: CallOptions = NO_OPTIONS,
    ) -> ModelReply:
        """Give the next reply of the script; its text word by word where somebody listens.

        Raises:
            AssertionError: the script is used up.
        """
        if confirm is not None:
            await confirm()
        self.requests.append(ModelRequest(tuple(messages), tuple(tools), tool_choice, options))
        if not self._replies:
            raise AssertionError("the scripted model was asked more often than it has replies")
        reply = self._replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        if listen is not None:
            for word in re.findall(r"\s*\S+|\s+$", reply.text):
                listen(TextPart(word))
        return reply


def says(
    text: str, *, model: str = "gpt-4o-mini", prompt: int = 10, completion: int = 5
) -> ModelReply:
    """A reply of text alone."""
    return ModelReply(text, (), TokenUsage(prompt, completion), "openai", model, "stop")


def calls(
    *tool_calls: tuple[str, Mapping[str, Any] | str], model: str = "gpt-4o-mini", text: str = ""
) -> ModelReply:
    """A reply that calls tools: (name, arguments) each; arguments as a mapping or as raw text."""
    wire = tuple(
        ToolCall(
            f"call_{index}",
            name,
            arguments if isinstance(arguments, str) else json.dumps(arguments),
        )
        for index, (name, arguments) in enumerate(tool_calls)
    )
    return ModelReply(text, wire, TokenUsage(10, 5), "openai", model, "tool_calls")


class MemoryStateStore:
    """The states of gates, of one process or of several workers of a test.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._states: dict[str, GateState] = {}

    async def read(self, names: Sequence[str]) -> Reading:
        """See `StateStore.read`."""
        return Reading(tuple(self._states.get(name, CLEAR) for name in names), self._clock())

    async def update(self, name: str, change: Transition) -> Change:
        """See `StateStore.update`."""
        now = self._clock()
        before = self._states.get(name, CLEAR)
        after = self._states[name] = change(before, now)
        return Change(before, after, now)
