"""What a gate needs of the gates that it is one of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from clasper_worker.engine.circuit.breaker import Transition
from clasper_worker.engine.circuit.policy import GatePolicy
from clasper_worker.engine.circuit.store import Change


class GateBoard(Protocol):
    """The clock, the shared states and the background work of one event loop's gates.

    Attributes:
        policy: the numbers of all gates.
        jitter: gives 0 to 1.
    """

    policy: GatePolicy
    jitter: Callable[[], float]

    def now(self) -> float:
        """The shared clock, as well as it is known; seconds."""
        ...

    @property
    def is_informed(self) -> bool:
        """Whether the states were read within the last second."""
        ...

    async def keep_informed(self) -> None:
        """Read the states if that is due; waits for it only if nothing was read for long."""
        ...

    async def refresh(self, older_than: float) -> None:
        """Have states that were read no longer than so many seconds ago."""
        ...

    async def update(self, name: str, change: Transition) -> Change:
        """Change a gate's shared state.

        Raises:
            StoreError: it could not be reached.
        """
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something of a gate's in the background, until the gates are closed."""
        ...
