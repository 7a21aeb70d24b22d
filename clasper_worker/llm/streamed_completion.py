"""The completion that a streamed answer's chunks make, and what they say at once.

Pure, but for the listener.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clasper_worker.llm.completion import text_of
from clasper_worker.llm.messages import CallBegun, Listen, ReasoningPart, TextPart
from clasper_worker.llm.response_body import (
    MAX_ANSWER_BYTES,
    BrokenAnswerError,
    refuse_choice,
    refuse_error,
    refuse_instead_of_choices,
)
from clasper_worker.llm.streamed_calls import StreamedCalls
from clasper_worker.text.whole_text import whole

_NO_REASON = frozenset({"", "null", "none"})
_DELTA_FIELDS = frozenset({"role", "content", "tool_calls", "function_call"})
# What comes in pieces; any other text that comes again replaces what was there.
_PIECEWISE = frozenset(
    {"reasoning_content", "reasoning", "refusal", "thinking", "text", "summary", "content"}
)
_REASONING = ("reasoning_content", "reasoning")
_JOINED_PARTS = frozenset({"text", "output_text", "thinking"})


class StreamedCompletion:
    """Takes the chunks of one answer.

    Args:
        listen: is given text, thoughts and the beginnings of tool calls.

    Attributes:
        reason: why it ended; None: nobody has said yet.
        has_choice: whether any chunk had one.
        size_kept: of what has come of the reply.
    """

    def __init__(self, listen: Listen) -> None:
        self._listen = listen
        self._model = ""
        self.reason: str | None = None
        self.has_choice = False
        self.size_kept = 0
        self._content: list[str] | None = None
        self._parts: list[Any] | None = None
        self._calls = StreamedCalls()
        self._others: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        # What has come since the listener was given something.
        self._text: list[str] = []
        self._thoughts: list[str] = []

    @property
    def is_whole(self) -> bool:
        """Whether it can be all: it says why it ended, or each of its calls has all arguments."""
        return self.reason is not None or self._calls.are_whole

    def take(self, chunk: dict[str, Any], size: int) -> None:
        """Take a chunk of so many bytes.

        Raises:
            EmbeddedError: it is an error.
            BrokenAnswerError: there is too much.
            LookupError, TypeError, AttributeError, ValueError, RecursionError: it has another form.
        """
        if error := chunk.get("error"):
            refuse_error(error)
        usage = chunk.get("usage")
        if not usage and (groq := chunk.get("x_groq")):
            usage = groq.get("usage")
        if usage:
            self._count(usage)
        choices = chunk.get("choices")
        if not choices:
            if not usage:
                refuse_instead_of_choices(chunk)
            return
        for choice in choices:
            if not choice.get("index"):
                self._take_choice(choice, size)
                break
        if not self._model and (model := chunk.get("model")):
            self._model = whole(str(model))

    def _take_choice(self, choice: dict[str, Any], size: int) -> None:
        refuse_choice(choice)
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            # A whole message in a chunk; beside deltas it only repeats them.
            message = choice.get("message")
            delta = message if isinstance(message, dict) and not self.has_choice else {}
        self.has_choice = True
        if content := delta.get("content"):
            self._take_content(content, size)
        elif content is not None and self._content is None:
            self._content = []
        for call in _list_of(delta.get("tool_calls")):
            self._take_call(call, size)
        if called := delta.get("function_call"):
            self._take_call({"index": 0, "function": called}, size)
        if not delta.keys() <= _DELTA_FIELDS:
            self._take_others(delta, size)
        if usage := choice.get("usage"):
            self._count(usage)
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason not in _NO_REASON:
            self.reason = whole(reason)

    def _take_content(self, content: Any, size: int) -> None:
        if isinstance(content, str) and self._parts is None:
            if self._content is None:
                self._content = []
            self._content.append(content)
            self._keep(len(content))
        else:
            self._keep(size)
            if self._parts is None:
                said = "".join(self._content or ())
                self._parts = [_begin({"type": "text", "text": said})] if said else []
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            _extend(self._parts, _list_of(parts))
            content = text_of(content)
        if content:
            self._text.append(content)

    def _take_call(self, call: dict[str, Any], size: int) -> None:
        index = len(self._calls)
        name, said = self._calls.add(call)
        self._keep(size if said is None else said)
        if name is not None:
            self.give()
            self._listen(CallBegun(index, name))

    def _take_others(self, delta: dict[str, Any], size: int) -> None:
        for name, value in delta.items():
            if value is not None and name not in _DELTA_FIELDS:
                self._keep(len(value) if isinstance(value, str) else size)
                _merge(self._others, name, value)
        for name in _REASONING:
            if isinstance(thoughts := delta.get(name), str) and thoughts:
                self._thoughts.append(thoughts)
                break

    def _keep(self, size: int) -> None:
        self.size_kept += size
        if self.size_kept > MAX_ANSWER_BYTES:
            raise BrokenAnswerError(f"it says more than {MAX_ANSWER_BYTES:,} bytes")

    def _count(self, usage: object) -> None:
        """Note the counts: given once at the end, or again and again, each time higher."""
        if not isinstance(usage, Mapping):
            return
        for name, value in usage.items():
            known = self._usage.get(name)
            if isinstance(value, int | float) and isinstance(known, int | float):
                self._usage[name] = max(known, value)
            elif value is not None:
                self._usage[name] = value

    def give(self) -> None:
        """Give the listener what has come, in few events."""
        if self._thoughts:
            thoughts = "".join(self._thoughts)
            self._thoughts.clear()
            self._listen(ReasoningPart(thoughts))
        if self._text:
            text = "".join(self._text)
            self._text.clear()
            self._listen(TextPart(text))

    def completion(self) -> dict[str, Any]:
        """What all chunks make, as `read_answer` gives it."""
        message: dict[str, Any] = {"role": "assistant", "content": None, **_joined(self._others)}
        if self._parts is not None:
            message["content"] = _joined(self._parts)
        elif self._content is not None:
            message["content"] = "".join(self._content)
        if self._calls:
            message["tool_calls"] = self._calls.message()
        choice = {"index": 0, "message": message, "finish_reason": self.reason}
        answer: dict[str, Any] = {"choices": [choice], "usage": self._usage or None}
        if self._model:
            answer["model"] = self._model
        return answer


class _Pieces(list[str]):
    """A text that comes in pieces."""


def _list_of(value: Any) -> list[Any]:
    if not value:
        return []
    return value if isinstance(value, list) else [value]


def _merge(into: dict[str, Any], name: str, value: Any) -> None:
    """Add what a chunk says of a field to what was said of it before."""
    known = into.get(name)
    if isinstance(value, str) and name in _PIECEWISE:
        if isinstance(known, _Pieces):
            known.append(value)
        else:
            into[name] = _Pieces([value])
    elif isinstance(value, dict):
        if not isinstance(known, dict):
            known = into[name] = {}
        for key, item in value.items():
            if item is not None:
                _merge(known, key, item)
    elif isinstance(value, list):
        if not isinstance(known, list) or isinstance(known, _Pieces):
            known = into[name] = []
        _extend(known, value)
    else:
        into[name] = value


def _extend(items: list[Any], more: list[Any]) -> None:
    """Add items to a list; one that goes on with the last is joined to it."""
    for item in more:
        last = items[-1] if items else None
        if isinstance(item, dict) and isinstance(last, dict) and _goes_on(last, item):
            for name, value in item.items():
                if value is not None:
                    _merge(last, name, value)
        else:
            items.append(_begin(item))


def _goes_on(last: dict[str, Any], item: dict[str, Any]) -> bool:
    kind = last.get("type")
    if item.get("type", kind) != kind or item.get("index") != last.get("index"):
        return False
    return item.get("index") is not None or kind in _JOINED_PARTS


def _begin(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    begun: dict[str, Any] = {}
    for name, value in item.items():
        _merge(begun, name, value)
    return begun


def _joined(value: Any) -> Any:
    """What was merged, with each text in one piece."""
    if isinstance(value, _Pieces):
        return "".join(value)
    if isinstance(value, dict):
        return {name: _joined(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_joined(item) for item in value]
    return value
