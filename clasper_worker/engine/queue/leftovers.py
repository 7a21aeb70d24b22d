"""What channels could not give back themselves: their connection was lost, or Redis refused it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Left:
    """Deliveries to give back, by their tokens.

    Attributes:
        settled: done for good.
        released: for another worker to run.
        lost: as those, of a process that was lost, of which the message may be the cause.
        buried: to be dead letters, each with the reason.
    """

    settled: Sequence[str] = ()
    released: Sequence[str] = ()
    lost: Sequence[str] = ()
    buried: Sequence[tuple[str, str]] = ()

    def __bool__(self) -> bool:
        return bool(self.settled or self.released or self.lost or self.buried)


class Leftovers:
    """Holds them until they are given back. From any thread."""

    def __init__(self) -> None:
        # Re-entrant: a shutdown's signal handler may come here while it interrupts its own thread.
        self._lock = threading.RLock()
        self._settled: list[str] = []
        self._released: list[str] = []
        self._lost: list[str] = []
        self._buried: list[tuple[str, str]] = []

    def leave(self, left: Left) -> None:
        """Add these."""
        with self._lock:
            self._settled += left.settled
            self._released += left.released
            self._lost += left.lost
            self._buried += left.buried

    def take(self) -> Left:
        """All of them; they are the caller's now."""
        with self._lock:
            left = Left(self._settled, self._released, self._lost, self._buried)
            self._settled, self._released, self._lost, self._buried = [], [], [], []
        return left
