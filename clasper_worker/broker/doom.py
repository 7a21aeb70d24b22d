"""A turn that fails for good becomes a dead letter, once its failure is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from clasper_worker.broker.schedule import Schedule
from clasper_worker.errors import (
    ClasperError,
    LaneFullError,
    LeaseLostError,
    SessionBusyError,
    TurnCancelledError,
    TurnConflictError,
    TurnTimeoutError,
)

# These are how such a turn is meant to end: running it again would change nothing.
OUTCOMES = (
    SessionBusyError,
    LaneFullError,
    TurnConflictError,
    TurnTimeoutError,
    LeaseLostError,
    TurnCancelledError,
)

log = structlog.get_logger(__name__)


class Doom:
    """Marks the deliveries of turns that fail for good.

    Args:
        schedule: the broker's scheduler; None where the broker is not Redis.
    """

    def __init__(self, schedule: Schedule | None) -> None:
        self._schedule = schedule

    @asynccontextmanager
    async def of_failures(self, lease: str | None) -> AsyncIterator[None]:
        """Doom the delivery if an error of ours leaves the block that is not one of `OUTCOMES`.

        A failure to do so is logged, and does not hide the error.

        Args:
            lease: the delivery's token; None where it has none.
        """
        try:
            yield
        except OUTCOMES:
            raise
        except ClasperError as exc:
            if lease is not None and self._schedule is not None:
                await self._doom(self._schedule, lease, f"{exc.code}: {exc}")
            raise

    async def close(self) -> None:
        """Close the connections."""
        if self._schedule is not None:
            self._schedule.close()

    async def _doom(self, schedule: Schedule, lease: str, reason: str) -> None:
        try:
            is_held = await asyncio.to_thread(schedule.doom, lease, reason)
        except Exception as exc:  # noqa: BLE001 - the turn's own error says more
            log.warning("turn.not_a_dead_letter", error=type(exc).__name__)
            return
        if is_held:
            log.warning("turn.dead_letter", letter_id=lease.rpartition("#")[0])
