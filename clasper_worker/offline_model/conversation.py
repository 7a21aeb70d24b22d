"""What a request says, taken apart: the person's words, their context, the history, the results.

The rules work on this and never on wire messages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from clasper_worker.offline_model.protocol import ChatRequest, FunctionSpec, Message
from clasper_worker.prompt.sanitize import unfence_data

LABEL = "[offline model]"
"""How every reply begins; only replies that a program reads (JSON, a sentinel) go without it."""

_READ_CHARS = 20_000
_DATA = re.compile(r"<data\b[^>]*>.*?(?:</data>|\Z)", re.DOTALL | re.IGNORECASE)
_TURN_CONTEXT = re.compile(r"\A\s*<turn_context>(.*?)</turn_context>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Utterance:
    """Something that was said earlier; ``role`` is ``user`` or ``assistant``."""

    role: str
    text: str = field(repr=False)

    @property
    def unlabelled(self) -> str:
        """The text without our label."""
        return self.text.removeprefix(LABEL).strip()


@dataclass(frozen=True, slots=True)
class ExecutedCall:
    """A tool call made for the newest message, with the result that came back, unfenced."""

    name: str
    arguments: dict[str, Any]
    result: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """One request as the rules see it.

    Attributes:
        words: the newest user message, without its turn context; "" where there is none. Other
            people's text in it stands in ``<data>`` blocks.
        turn_context: what the ``<turn_context>`` block before the words said; not the person's.
        system: all system and developer messages.
        history: what was said before the newest user message, oldest first.
        executed: tool calls made since that message, in order.
        tools: the functions that may be called; none under ``tool_choice: "none"``.
    """

    words: str = field(repr=False)
    turn_context: str = field(default="", repr=False)
    system: str = field(default="", repr=False)
    history: tuple[Utterance, ...] = field(default=(), repr=False)
    executed: tuple[ExecutedCall, ...] = field(default=(), repr=False)
    tools: tuple[FunctionSpec, ...] = ()

    @property
    def asked(self) -> str:
        """The words that may ask for something: without ``<data>`` blocks, which are others' text.

        Of a very long message only the beginning is read, to keep a reply fast.
        """
        return _DATA.sub(" ", self.words[:_READ_CHARS]).strip()

    @property
    def said_before(self) -> tuple[str, ...]:
        """The person's earlier messages, oldest first."""
        return tuple(item.text for item in self.history if item.role == "user")


def read_conversation(request: ChatRequest) -> Conversation:
    """Take a request apart."""
    messages = request.messages
    newest = max((i for i, item in enumerate(messages) if item.role == "user"), default=-1)
    context, words = split_turn_context(messages[newest].text if newest >= 0 else "")
    may_call = request.tool_choice is None or request.tool_choice.type != "none"
    return Conversation(
        words=words,
        turn_context=context,
        system="\n\n".join(item.text for item in messages if item.role in {"system", "developer"}),
        history=tuple(_utterances(messages[: max(newest, 0)])),
        executed=tuple(_executed(messages[newest + 1 :])),
        tools=request.functions if may_call else (),
    )


def split_turn_context(text: str) -> tuple[str, str]:
    """The block ``<turn_context>…</turn_context>`` at a message's start, and the person's words."""
    match = _TURN_CONTEXT.match(text)
    if match is None:
        return "", text.strip()
    return match.group(1).strip(), text[match.end() :].strip()


def _utterances(messages: Iterable[Message]) -> Iterable[Utterance]:
    for message in messages:
        if message.role not in {"user", "assistant"}:
            continue
        text = split_turn_context(message.text)[1]
        if text:
            yield Utterance(message.role, text)


def _executed(messages: Iterable[Message]) -> Iterable[ExecutedCall]:
    made: dict[str, tuple[str, dict[str, Any]]] = {}
    for message in messages:
        for call in message.tool_calls:
            made[call.id] = (call.function.name, _arguments(call.function.arguments))
        if message.role in {"tool", "function"}:
            name, arguments = made.get(message.tool_call_id or "", ("a tool", {}))
            yield ExecutedCall(name, arguments, unfence_data(message.text))


def _arguments(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
