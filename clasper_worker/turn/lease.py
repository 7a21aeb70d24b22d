"""The fence of a turn: nothing is posted by a run that another has taken over."""

from __future__ import annotations

from typing import Protocol


class Lease(Protocol):
    """A run's right to act for its turn, for as long as it is the one that has the turn."""

    async def confirm(self) -> None:
        """Make sure that the turn is still this run's; called right before each POST.

        Raises:
            LeaseLostError: another run has taken the turn over.
        """
        ...


class NoLease:
    """For turns that nobody else can take over: it is always confirmed."""

    async def confirm(self) -> None:
        """See `Lease.confirm`."""
