"""What was done already, and who is at it: small notes in Redis that all workers share.

Each call may be repeated, where a connection broke before the answer came, without harm.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from clasper_worker.engine.redis.scripts import State, StateScript
from clasper_worker.errors import StateUnavailableError

_LOCK_SECONDS = 10.0
_RENEW_SECONDS = 3.0
_CLAIM = StateScript("""
-- KEYS: the note. ARGV: who, milliseconds. SET NX, and a second time for the same one.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
""")
_RELEASE = StateScript("""
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
""")
_READ = StateScript("return redis.call('MGET', unpack(KEYS))")
_WRITE = StateScript("""
-- KEYS: notes. ARGV: text, milliseconds, 'NX' or 'XX' or ''.
for _, key in ipairs(KEYS) do
  if ARGV[3] == '' then redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
  else redis.call('SET', key, ARGV[1], 'PX', ARGV[2], ARGV[3]) end
end
return 1
""")


class Notes(Protocol):
    """What a dispatcher needs of `Slots`."""

    def lock(self, name: str, holder: str) -> AbstractAsyncContextManager[bool]:
        """See `Slots.lock`."""
        ...

    async def read(self, names: Sequence[str]) -> list[str | None]:
        """See `Slots.read`."""
        ...

    async def write(
        self, names: Sequence[str], text: str, seconds: float, *, only_new: bool = False
    ) -> None:
        """See `Slots.write`."""
        ...


class Slots:
    """Claims, locks and notes under ``clasper:jobs:``.

    Args:
        state: our own state's Redis.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    async def claim(self, name: str, holder: str, seconds: float) -> bool:
        """Take something that is there once, such as a schedule's slot.

        Args:
            name: the slot.
            holder: who takes it: the same one may do so again, as a job does that is run again
                after its worker died.
            seconds: how long it stays taken.

        Returns:
            Whether it is the holder's.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        return bool(await self._state.call(_CLAIM, [note_key(name)], [holder, _ms(seconds)]))

    async def release(self, name: str, holder: str) -> None:
        """Give a claim back, if it is the holder's.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        await self._state.call(_RELEASE, [note_key(name)], [holder])

    @asynccontextmanager
    async def lock(self, name: str, holder: str) -> AsyncIterator[bool]:
        """Hold a lock for as long as the block takes; gives False at once where another has it.

        Of a dead holder it is free again within seconds.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        name = f"lock:{name}"
        if not await self.claim(name, holder, _LOCK_SECONDS):
            yield False
            return
        renewal = asyncio.create_task(self._renew(name, holder))
        try:
            yield True
        finally:
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)
            await self.release(name, holder)

    async def read(self, names: Sequence[str]) -> list[str | None]:
        """The notes of these names; None where there is none.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        if not names:
            return []
        found = await self._state.call(_READ, [note_key(name) for name in names])
        return [None if text is None else text.decode() for text in found]

    async def write(
        self, names: Sequence[str], text: str, seconds: float, *, only_new: bool = False
    ) -> None:
        """Leave a note under each of these names.

        Args:
            names: of the notes.
            text: what they say.
            seconds: how long they last.
            only_new: leave alone what is there.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        if names:
            how = "NX" if only_new else ""
            await self._state.call(
                _WRITE, [note_key(name) for name in names], [text, _ms(seconds), how]
            )

    async def _renew(self, name: str, holder: str) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            try:
                await self.claim(name, holder, _LOCK_SECONDS)
            except StateUnavailableError:
                return


def note_key(name: str) -> str:
    """The key of a note in Redis."""
    return f"clasper:jobs:{name}"


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


class OwnNotes:
    """As `clasper_worker.periodic.notes.Slots`, within this process and for as long as it lives.

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
