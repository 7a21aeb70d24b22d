"""The workspaces as the shim sees them: opened when first asked for, and watched from then on."""

from __future__ import annotations

import asyncio

from clasper_worker.prompt.snapshot import WorkspaceSnapshot
from clasper_worker.prompt.workspaces import Workspaces
from clasper_worker.settings import Settings


class ShimWorkspaces:
    """Workspaces of a shim. One that has none still serves turns, which the workers run.

    Args:
        settings: the operator's; the same as the workers'.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: Workspaces | None = None
        self._opening = asyncio.Lock()

    async def snapshot(self, name: str | None) -> WorkspaceSnapshot:
        """What the workspace of that name says now; the default one's for None.

        Raises:
            WorkspaceError: its folder is not there.
            InvalidRequestError: no such name.
        """
        async with self._opening:
            if self._opened is None:
                settings = self._settings
                self._opened = await asyncio.to_thread(
                    Workspaces.open, settings.clasper_workspace, settings.clasper_workspaces
                )
        return self._opened.snapshot(name, "")

    def close(self) -> None:
        """Stop watching."""
        if self._opened is not None:
            self._opened.close()
