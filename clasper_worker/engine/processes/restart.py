"""Whether a process that ended on its own is started again: a decision over plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

RESTART_LIMIT = 3
# A process that ran this long was well: what happened before no longer counts.
_HEALTHY_SECONDS = 60.0
_FIRST_DELAY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it again: for the how manieth time, and after how many seconds."""

    number: int
    delay_seconds: float


def next_restart(restarts: int, ran_seconds: float) -> Restart | None:
    """The next restart of a process that ended without being asked to; None: give up.

    Args:
        restarts: how many there were since it last ran well.
        ran_seconds: how long it ran this time.
    """
    if ran_seconds >= _HEALTHY_SECONDS:
        restarts = 0
    if restarts >= RESTART_LIMIT:
        return None
    return Restart(restarts + 1, _FIRST_DELAY_SECONDS * 2**restarts)
