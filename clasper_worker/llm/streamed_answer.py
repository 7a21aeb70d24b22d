"""An answer that comes as server-sent events: its lines, and the data of each event.

Read from the raw bytes, since an answer has hundreds of events. Each event's data is one JSON
object; it is taken as soon as its line is there, and lines are only joined where one alone is no
JSON. Pure, but for the listener.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from clasper_worker.llm.completion import text_of
from clasper_worker.llm.messages import Listen, TextPart
from clasper_worker.llm.response_body import (
    MAX_ANSWER_BYTES,
    BrokenAnswerError,
    read_answer,
    refuse_error,
)
from clasper_worker.llm.streamed_completion import StreamedCompletion
from clasper_worker.text.large_json import has_too_many_values

MAX_STREAM_BYTES = 64 * 1024 * 1024
"""Of one answer with all that its events repeat: some 250 bytes come with each few letters."""

# What `json.loads` calls, for half its time: there is nothing around an event's data.
_SCAN: Any = json.JSONDecoder().scan_once  # type: ignore[attr-defined]

_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_LONGEST_FIELD = 6


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
        self._reply = StreamedCompletion(listen)

    @property
    def has_begun(self) -> bool:
        """Whether anything of the reply has come."""
        return self._reply.size_kept > 0

    @property
    def is_done(self) -> bool:
        """Whether the server has said that nothing more comes."""
        return self._is_done

    @property
    def is_whole(self) -> bool:
        """Whether the reply is there; its usage may still come."""
        return self._is_done or self._reply.reason is not None

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
                self._reply.give()

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
        if not self.is_whole or not self._reply.is_whole:
            raise CutAnswerError
        if not self._reply.has_choice:
            raise BrokenAnswerError("it has no choices")
        return self._reply.completion()

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
                self._reply.take(data, len(value))
            except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as exc:
                raise BrokenAnswerError(f"{type(exc).__name__} while reading an event") from exc
        return True

    def _read_last_line(self) -> None:
        """Read a last line that no line end follows; half of one is none."""
        line, reason = b"".join(self._line), self._reply.reason
        self._line.clear()
        try:
            self._take_line(line)
            self._end_event()
        except BrokenAnswerError:
            self._reply.reason = reason
        finally:
            self._reply.give()


def tell_whole(answer: Mapping[str, Any], listen: Listen) -> None:
    """Give a listener what a whole completion says; what is of no known form is left out."""
    message = answer["choices"][0]["message"]
    try:
        text = text_of(message.get("content")) or text_of(message.get("refusal"))
    except TypeError:
        return  # which whoever reads the reply will say
    if text:
        listen(TextPart(text))
