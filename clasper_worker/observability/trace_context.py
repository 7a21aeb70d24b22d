"""The trace that a request, a turn or a call belongs to (W3C Trace Context, level 1).

A caller's ``traceparent`` comes in by HTTP or as a header of the task's message, where
OpenTelemetry puts it too; its trace id becomes the turn's ``trace_id``, and goes out to the
backend. Only ids pass on: ``tracestate`` and baggage are other people's text.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

TRACEPARENT = "traceparent"
TRACE_ID = "x-trace-id"

_HEX = frozenset("0123456789abcdef")


def _new_id(digits: int) -> str:
    return f"{random.getrandbits(digits * 4) or 1:0{digits}x}"


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One place in a trace.

    Attributes:
        trace_id: 32 hexadecimal digits.
        parent_id: 16 hexadecimal digits: whatever calls from here.
        is_sampled: whether the caller records the trace; true where nobody says.
    """

    trace_id: str = field(default_factory=lambda: _new_id(32))
    parent_id: str = field(default_factory=lambda: _new_id(16))
    is_sampled: bool = True

    @property
    def traceparent(self) -> str:
        """The header's value."""
        return f"00-{self.trace_id}-{self.parent_id}-{int(self.is_sampled):02x}"

    @classmethod
    def read(cls, value: object) -> TraceContext | None:
        """Read a ``traceparent``; None where it is none, or of a form that is not ours to guess."""
        if not isinstance(value, str) or not 55 <= len(value) <= 200:
            return None
        version, trace_id, parent_id, flags = (*value[:55].split("-", 3), "", "", "")[:4]
        more = value[55:]
        is_whole = not more or (version != "00" and more.startswith("-"))
        is_known = len(version) == len(flags) == 2 and _is_hex(version + flags) and version != "ff"
        if not (is_whole and is_known and _is_id(trace_id, 32) and _is_id(parent_id, 16)):
            return None
        return cls(trace_id, parent_id, bool(int(flags, 16) & 1))

    @classmethod
    def of_trace(cls, trace_id: str | None) -> TraceContext | None:
        """A place in the trace that an ``X-Trace-Id`` names; None where it names none."""
        if trace_id is None:
            return None
        plain = trace_id.strip().lower().replace("-", "")  # a UUID is one too
        return cls(plain) if _is_id(plain, 32) else None


def _is_hex(text: str) -> bool:
    return _HEX.issuperset(text)


def _is_id(text: str, digits: int) -> bool:
    return len(text) == digits and _is_hex(text) and text.strip("0") != ""


_current: ContextVar[TraceContext | None] = ContextVar("clasper_trace", default=None)


def current_trace() -> TraceContext | None:
    """The trace of what runs in this context; None outside of any."""
    return _current.get()


def continue_trace(trace_id: str) -> None:
    """What runs in this context from here on belongs to the trace, unless it does already."""
    trace = _current.get()
    if trace is None or trace.trace_id != trace_id:
        enter_trace(TraceContext(trace_id))


@contextmanager
def within_trace(trace: TraceContext) -> Iterator[None]:
    """What runs within belongs to the trace."""
    before = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(before)


def enter_trace(trace: TraceContext) -> None:
    """What runs in this context from here on, and what it starts, belongs to the trace."""
    _current.set(trace)
