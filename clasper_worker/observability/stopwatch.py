"""Where a run of a turn spends its time, for the line that tells of its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

Part = Literal["model", "tools", "backend"]

_MILLISECONDS = 3  # decimals that are told


@dataclass(slots=True)
class Stopwatch:
    """The time of one run.

    Attributes:
        queue: seconds that the turn waited for this run; None where that is not known.
        clock: in seconds.
        lane: of the seconds that it waited, those behind other turns of its session.
    """

    queue: float | None = None
    clock: Callable[[], float] = time.monotonic
    lane: float | None = None
    _began: float = field(init=False)
    _spent: dict[Part, float] = field(init=False, default_factory=dict)
    _running: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    @contextmanager
    def of(self, part: Part) -> Iterator[None]:
        """Count what runs within towards this part; within another part, towards that alone."""
        if self._running:
            yield
            return
        self._running, began = True, self.clock()
        try:
            yield
        finally:
            self._running = False
            self._spent[part] = self._spent.get(part, 0.0) + self.clock() - began

    def told(self) -> dict[str, float | None]:
        """Seconds: in all since the run began, and of them in each part; and before it, queued."""
        parts: tuple[Part, ...] = ("model", "tools", "backend")
        return {
            "total": round(self.clock() - self._began, _MILLISECONDS),
            "queue": None if self.queue is None else round(self.queue, _MILLISECONDS),
            **{part: round(self._spent.get(part, 0.0), _MILLISECONDS) for part in parts},
        }


_of_this_turn: ContextVar[Stopwatch | None] = ContextVar("clasper_stopwatch", default=None)


def start_stopwatch(queue: float | None, lane: float | None = None) -> Stopwatch:
    """Begin to count for the turn that runs in this context.

    Args:
        queue: seconds that it waited for this run, where that is known.
        lane: of them, those behind other turns of its session.
    """
    watch = Stopwatch(queue, lane=lane)
    _of_this_turn.set(watch)
    return watch


def stopwatch() -> Stopwatch:
    """The watch of the turn that runs in this context; one that begins now where it has none."""
    return _of_this_turn.get() or start_stopwatch(None)


@contextmanager
def spent_on(part: Part) -> Iterator[None]:
    """Count what runs within towards this part of the turn, where there is one."""
    watch = _of_this_turn.get()
    if watch is None:
        yield
        return
    with watch.of(part):
        yield
