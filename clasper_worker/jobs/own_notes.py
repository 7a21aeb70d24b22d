"""Notes and locks of one process, for a dispatcher that shares no Redis with anybody."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager


class OwnNotes:
    """As `clasper_worker.jobs.slots.Slots`, within this process and for as long as it lives.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._notes: dict[str, tuple[str, float]] = {}  # text, and until when
        self._locked: set[str] = set()

    @asynccontextmanager
    async def lock(self, name: str, holder: str) -> AsyncIterator[bool]:
        """See `Slots.lock`."""
        del holder
        if name in self._locked:
            yield False
            return
        self._locked.add(name)
        try:
            yield True
        finally:
            self._locked.discard(name)

    async def read(self, names: Sequence[str]) -> list[str | None]:
        """See `Slots.read`."""
        now = self._clock()
        self._notes = {name: note for name, note in self._notes.items() if note[1] > now}
        return [self._notes[name][0] if name in self._notes else None for name in names]

    async def write(
        self, names: Sequence[str], text: str, seconds: float, *, only_new: bool = False
    ) -> None:
        """See `Slots.write`."""
        known = await self.read(names)
        until = self._clock() + seconds
        for name, before in zip(names, known, strict=True):
            if before is None or not only_new:
                self._notes[name] = (text, until)
