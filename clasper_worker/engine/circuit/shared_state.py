"""One host's state as this process knows it: what all workers share, and what it saw since."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from clasper_worker.engine.circuit.board import GateBoard
from clasper_worker.engine.circuit.breaker import CLEAR, GateState, Transition, clamped
from clasper_worker.engine.circuit.store import StoreError

log = structlog.get_logger(__name__)


class SharedState:
    """Knows of what this process sees at once, and shares it in the background.

    Args:
        name: the gate's, the same for all workers.
        board: the gates that it is one of.
        on_news: called when the state has become another by what the store said.

    Attributes:
        current: what this process knows of the host.
        version: grows with each change of this process's that became the shared state.
    """

    def __init__(self, name: str, board: GateBoard, on_news: Callable[[], object]) -> None:
        self.current = CLEAR
        self.version = 0
        self._name = name
        self._board = board
        self._on_news = on_news
        self._clamp = clamped(board.policy)
        self._shared = CLEAR
        self._unshared: list[Transition] = []  # seen here, and not in the shared state yet
        self._sharing = asyncio.Lock()

    def see(self, change: Transition) -> asyncio.Task[None]:
        """Know of a change at once, and share it in the background."""
        self._unshared.append(change)
        self.current = change(self.current, self._board.now())
        return self._board.spawn(self._share())

    def learn(self, state: GateState, version: int) -> None:
        """Take over the shared state, unless it was read before this process last changed it."""
        if version == self.version:
            self._adopt(state)

    async def _share(self) -> None:
        async with self._sharing:
            changes = tuple(self._unshared)
            if not changes:
                return

            def change(state: GateState, now: float) -> GateState:
                return _fold((self._clamp, *changes), state, now)

            try:
                found = await self._board.update(self._name, change)
                before, after = found.before, found.after
            except StoreError:  # then this process goes by what it sees itself
                before, after = self._shared, change(self._shared, self._board.now())
            del self._unshared[: len(changes)]
            self.version += 1
            self._adopt(after)
            self._log(before, after)

    def _adopt(self, state: GateState) -> None:
        known = self.current
        self._shared = state
        self.current = _fold((self._clamp, *self._unshared), state, self._board.now())
        if self.current != known:
            self._on_news()

    def _log(self, before: GateState, after: GateState) -> None:
        if after.is_open and not before.is_open:
            log.warning("gate.opened", host=self._name, times=after.trips)
        elif before.is_open and not after.is_open:
            log.info("gate.closed", host=self._name, probes=after.trips)
        now = self._board.now()
        if after.is_paused(now) and not before.is_paused(now):
            log.warning("gate.paused", host=self._name, seconds=round(after.paused_until - now, 1))


def _fold(changes: tuple[Transition, ...], state: GateState, now: float) -> GateState:
    for change in changes:
        state = change(state, now)
    return state
