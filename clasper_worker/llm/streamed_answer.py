"""An answer that comes as server-sent events: what it says at once, and the completion it makes.

Read from the raw bytes, since an answer has hundreds of events. Each event's data is one JSON
object; it is taken as soon as its line is there, and lines are only joined where one alone is no
JSON. Pure, but for the listener.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from clasper_worker.llm.completion import text_of
from clasper_worker.llm.messages import CallBegun, Listen, ReasoningPart, TextPart
from clasper_worker.llm.response_body import (
    MAX_ANSWER_BYTES,
    BrokenAnswerError,
    read_answer,
    refuse_choice,
    refuse_error,
    refuse_instead_of_choices,
)
from clasper_worker.llm.streamed_calls import StreamedCalls
from clasper_worker.text.large_json import has_too_many_values
from clasper_worker.text.whole_text import whole

MAX_STREAM_BYTES = 64 * 1024 * 1024
"""Of one answer with all that its events repeat: some 250 bytes come with each few letters."""

# What `json.loads` calls, for half its time: there is nothing around an event's data.
_SCAN: Any = json.JSONDecoder().scan_once  # type: ignore[attr-defined]

_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_LONGEST_FIELD = 6
_NO_REASON = frozenset({"", "null", "none"})
_DELTA_FIELDS = frozenset({"role", "content", "tool_calls", "function_call"})
# What comes in pieces; any other text that comes again replaces what was there.
_PIECEWISE = frozenset(
    {"reasoning_content", "reasoning", "refusal", "thinking", "text", "summary", "content"}
)
_REASONING = ("reasoning_content", "reasoning")
_JOINED_PARTS = frozenset({"text", "output_text", "thinking"})


class CutAnswerError(Exception):
    """The answer ended before it was whole."""


class StreamedAnswer:
    """Takes the body of an answer as it comes.

    A server that answers with a whole completion instead is understood as well.

    Args:
        listen: is given text, thoughts and the beginnings of tool calls; what comes at once, at
            once.
        is_stream: whether the answer's headers say that it is one.
    """

    def __init__(self, listen: Listen, *, is_stream: bool = True) -> None:
        self._listen = listen
        self._is_stream = is_stream
        self._size = 0
        self._head: bytes | None = b""  # until it is known what the body is
        self._plain: list[bytes] | None = None
        self._ends_in_return = False
        self._line: list[bytes] = []  # the one that is not whole yet
        self._line_size = 0
        self._event = b""
        self._data: list[bytes] = []  # of an event whose first line alone is no JSON
        self._is_done = False
        # What has come of the reply.
        self._model = ""
        self._reason: str | None = None
        self._has_choice = False
        self._size_kept = 0
        self._content: list[str] | None = None
        self._parts: list[Any] | None = None
        self._calls = StreamedCalls()
        self._others: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        # What the bytes that are being read have brought.
        self._text: list[str] = []
        self._thoughts: list[str] = []

    @property
    def has_begun(self) -> bool:
        """Whether anything of the reply has come."""
        return self._size_kept > 0

    @property
    def is_done(self) -> bool:
        """Whether the server has said that nothing more comes."""
        return self._is_done

    @property
    def is_whole(self) -> bool:
        """Whether the reply is there; its usage may still come."""
        return self._is_done or self._reason is not None

    def feed(self, data: bytes) -> None:
        """Take what has come.

        Raises:
            EmbeddedError: it is an error.
            BrokenAnswerError: it is no answer.
        """
        self._size += len(data)
        if self._size > MAX_STREAM_BYTES:
            raise BrokenAnswerError(f"it has more than {MAX_STREAM_BYTES:,} bytes")
        if self._head is not None:
            data = self._told_apart(data)
        if self._plain is not None:
            self._plain.append(data)
            if self._size > MAX_ANSWER_BYTES:
                raise BrokenAnswerError(f"it has more than {MAX_ANSWER_BYTES:,} bytes")
        elif data:
            try:
                self._lines(data)
            finally:
                self._give()

    def end(self) -> dict[str, Any]:
        """The chat completion that has come, as `read_answer` gives it.

        Raises:
            CutAnswerError: it is not whole.
            EmbeddedError, BrokenAnswerError: as `feed`.
        """
        if self._head is not None:  # of so few bytes that they tell nothing
            if self._is_stream:
                self._lines(self._head)
            else:
                self._plain = [self._head]
        if self._plain is not None:
            answer = read_answer(b"".join(self._plain))
            tell_whole(answer, self._listen)
            return answer
        if not self._is_done:
            self._read_last_line()
        if not self.is_whole or (self._reason is None and not self._calls.are_whole):
            raise CutAnswerError
        if not self._has_choice:
            raise BrokenAnswerError("it has no choices")
        return self._completion()

    # Lines

    def _told_apart(self, data: bytes) -> bytes:
        """Find out whether events come; returns what there is to read as what it is."""
        start = ((self._head or b"") + data).lstrip(b"\xef\xbb\xbf \t\r\n")
        if len(start) < _LONGEST_FIELD and b"\n" not in start:
            self._head = start
            return b""
        self._head = None
        if not start.startswith(_FIELDS):
            self._plain = []
        return start

    def _lines(self, data: bytes) -> None:
        if b"\r" in data or self._ends_in_return:
            if self._ends_in_return:
                data = data.removeprefix(b"\n")
            self._ends_in_return = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._line:
            self._line.append(lines[0])
            lines[0] = b"".join(self._line)
            self._line.clear()
            self._line_size = 0
        for line in lines:
            if self._is_done:
                return
            self._take_line(line)
        if rest:
            self._line.append(rest)
            self._line_size += len(rest)
            if self._line_size > MAX_ANSWER_BYTES:
                raise BrokenAnswerError(
                    f"one of its lines has more than {MAX_ANSWER_BYTES:,} bytes"
                )

    def _take_line(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            self._take_data(line[5:].strip())
        elif not line:
            self._end_event()
        elif line.startswith(b"event:"):
            self._event = line[6:].strip()
        elif line.startswith(b"{"):  # an error that a proxy puts between the events
            self._take_data(line)

    def _take_data(self, value: bytes) -> None:
        if self._data:
            self._data.append(value)
        elif value == b"[DONE]":
            self._is_done = True
        elif value and not self._take_json(value):
            self._data.append(value)

    def _end_event(self) -> None:
        if self._data:
            data = b"\n".join(self._data)
            self._data.clear()
            if not self._take_json(data):
                if self._event == b"error":
                    refuse_error(data.decode(errors="replace"))
                raise BrokenAnswerError("one of its events is not JSON")
        self._event = b""

    def _take_json(self, value: bytes) -> bool:
        """Take an event's data; False where it is no JSON."""
        if len(value) > MAX_ANSWER_BYTES or has_too_many_values(value):
            raise BrokenAnswerError("one of its events is too large")
        try:
            # Not `json_of`: halves of a surrogate pair may come in two events.
            text = value.decode("utf-8", "surrogatepass")
            data, end = _SCAN(text, 0)
        except (ValueError, StopIteration):
            return False
        except RecursionError as exc:
            raise BrokenAnswerError("one of its events is nested too deeply") from exc
        if end != len(text):
            return False
        if isinstance(data, list) and data:
            data = data[0]  # as Google's compatible API wraps its errors
        if self._event == b"error":
            refuse_error((isinstance(data, dict) and data.get("error")) or data or "error")
        if isinstance(data, dict):
            try:
                self._take_chunk(data, len(value))
            except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as exc:
                raise BrokenAnswerError(f"{type(exc).__name__} while reading an event") from exc
        return True

    def _read_last_line(self) -> None:
        """Read a last line that no line end follows; half of one is none."""
        line, reason = b"".join(self._line), self._reason
        self._line.clear()
        try:
            self._take_line(line)
            self._end_event()
        except BrokenAnswerError:
            self._reason = reason
        finally:
            self._give()

    # Chunks

    def _take_chunk(self, chunk: dict[str, Any], size: int) -> None:
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
            delta = message if isinstance(message, dict) and not self._has_choice else {}
        self._has_choice = True
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
            self._reason = whole(reason)

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
            self._give()
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
        self._size_kept += size
        if self._size_kept > MAX_ANSWER_BYTES:
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

    # What it makes

    def _give(self) -> None:
        """Give the listener what has come, in few events."""
        if self._thoughts:
            thoughts = "".join(self._thoughts)
            self._thoughts.clear()
            self._listen(ReasoningPart(thoughts))
        if self._text:
            text = "".join(self._text)
            self._text.clear()
            self._listen(TextPart(text))

    def _completion(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None, **_joined(self._others)}
        if self._parts is not None:
            message["content"] = _joined(self._parts)
        elif self._content is not None:
            message["content"] = "".join(self._content)
        if self._calls:
            message["tool_calls"] = self._calls.message()
        choice = {"index": 0, "message": message, "finish_reason": self._reason}
        answer: dict[str, Any] = {"choices": [choice], "usage": self._usage or None}
        if self._model:
            answer["model"] = self._model
        return answer


def tell_whole(answer: Mapping[str, Any], listen: Listen) -> None:
    """Give a listener what a whole completion says; what is of no known form is left out."""
    message = answer["choices"][0]["message"]
    try:
        text = text_of(message.get("content")) or text_of(message.get("refusal"))
    except TypeError:
        return  # which whoever reads the reply will say
    if text:
        listen(TextPart(text))


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
