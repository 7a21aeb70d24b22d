"""Points of a turn at which a server can be told to wait, or to kill whoever is there.

One trap is armed at a time. The first call that comes to its point springs it: the call is held
until the trap is released, and whoever armed it is told. Or, for moments too short to be told of,
the server itself sends a signal to the worker that made the call, at a random microsecond.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Trap:
    """What to wait for, and what to do then.

    Attributes:
        point: such as ``model.received``.
        token: of the turn; None for any.
        worker: who calls; None for any.
        hold: whether the call waits to be released.
        pids: of the workers by name, where the server itself is to strike.
        signal: to send to the worker that made the call; 0 for none.
        delay: before it is sent, in seconds.
    """

    point: str
    token: str | None = None
    worker: str | None = None
    hold: bool = True
    pids: Mapping[str, int] | None = None
    signal: int = 0
    delay: float = 0.0


class Traps:
    """The traps of one server."""

    def __init__(self) -> None:
        self._armed: Trap | None = None
        self._sprung: asyncio.Future[dict[str, Any]] | None = None
        self._released: asyncio.Event = asyncio.Event()

    def arm(self, trap: Trap) -> None:
        """Wait for a call from now on; an earlier trap is let go."""
        self._released.set()
        self._armed = trap
        self._sprung = asyncio.get_running_loop().create_future()
        self._released = asyncio.Event()

    async def sprung(self, seconds: float) -> dict[str, Any] | None:
        """What sprang the trap: ``token``, ``worker``, ``at``; None if nothing did in time."""
        if self._sprung is None:
            return None
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(self._sprung), seconds)
        return None

    def release(self) -> None:
        """Let go of the call that is held, and wait for none any more."""
        self._armed = None
        self._released.set()

    async def pass_by(self, point: str, token: str, worker: str) -> None:
        """A call is at a point: returns at once, or when it may go on."""
        trap = self._armed
        if trap is None or trap.point != point:
            return
        if trap.token not in {None, token} or trap.worker not in {None, worker}:
            return
        self._armed = None
        released = self._released
        if trap.signal and trap.pids and worker in trap.pids:
            time.sleep(trap.delay)  # noqa: ASYNC251 - microseconds count; a loop's timer is coarser
            with contextlib.suppress(ProcessLookupError):
                os.kill(trap.pids[worker], trap.signal)
        if self._sprung is not None and not self._sprung.done():
            self._sprung.set_result({"token": token, "worker": worker, "at": time.monotonic()})
        if trap.hold:
            await released.wait()
