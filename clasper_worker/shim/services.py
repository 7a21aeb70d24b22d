"""What the shim's routes share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from clasper_worker.client import ClasperClient
from clasper_worker.config.settings import Settings
from clasper_worker.engine.queue.cancel import Canceller
from clasper_worker.engine.queue.scheduler import open_schedule
from clasper_worker.engine.redis.scripts import redis_client
from clasper_worker.prompt.retrieval.context_index import ContextIndex
from clasper_worker.prompt.workspace.skills import this_host
from clasper_worker.prompt.workspace.snapshot import WorkspaceSnapshot
from clasper_worker.prompt.workspace.workspace import Workspace
from clasper_worker.prompt.workspace.workspaces import Workspaces
from clasper_worker.shim.boot import BootRecord
from clasper_worker.shim.results import JobRegister
from clasper_worker.streams.reader import Places, StreamReader
from clasper_worker.streams.results import JobResults
from clasper_worker.turn.request import RequestLimits


@dataclass(frozen=True, slots=True)
class IndexStats:
    """What there is to choose from in one version of a workspace.

    Attributes:
        skills: those that turns choose from.
        memory_chunks: pieces of memory.
        indexed_at: when they were indexed.
    """

    skills: int
    memory_chunks: int
    indexed_at: datetime

    @classmethod
    def of(cls, snapshot: WorkspaceSnapshot) -> Self:
        """Index a snapshot; takes a second for a megabyte."""
        index = ContextIndex.build(snapshot)
        return cls(len(index.skills), len(index.memory), datetime.now(UTC))


class ShimWorkspaces:
    """Workspaces of a shim. One that has none still serves turns, which the workers run.

    Args:
        settings: the operator's; the same as the workers'.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: Workspaces | None = None
        self._stats: dict[Path, tuple[WorkspaceSnapshot, IndexStats]] = {}
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

    async def stats(self, name: str | None, *, anew: bool = False) -> IndexStats:
        """What turns choose from in the workspace of that name.

        Args:
            name: as in `snapshot`.
            anew: read the folder now, and do not wait until a change is noticed.

        Raises:
            WorkspaceError: its folder is not there.
            InvalidRequestError: no such name.
        """
        snapshot = await self.snapshot(name)
        if anew:
            fresh = await asyncio.to_thread(Workspace, snapshot.root, this_host())
            snapshot = fresh.current()
        known = self._stats.get(snapshot.root)
        if anew or known is None or known[0] != snapshot:
            stats = await asyncio.to_thread(IndexStats.of, snapshot)
            known = self._stats[snapshot.root] = (snapshot, stats)
        return known[1]

    def close(self) -> None:
        """Stop watching."""
        if self._opened is not None:
            self._opened.close()


@dataclass(frozen=True, slots=True)
class ShimServices:
    """The collaborators of one shim."""

    settings: Settings
    client: ClasperClient
    results: JobResults
    register: JobRegister
    limits: RequestLimits
    canceller: Canceller
    workspaces: ShimWorkspaces
    boots: BootRecord
    streams: StreamReader

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make them for the broker and result backend that the settings name."""
        client = ClasperClient.from_settings(settings)
        state = redis_client(settings.redis_url, settings)
        results = JobResults(client.app, settings.result_backend_url)
        return cls(
            settings,
            client,
            results,
            JobRegister(state, ttl_seconds=settings.clasper_result_ttl_sec),
            RequestLimits.from_settings(settings),
            Canceller.from_settings(client.app, settings),
            ShimWorkspaces(settings),
            BootRecord(state),
            StreamReader(state, results, Places(open_schedule(settings))),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self.streams.close()
        await self.results.close()
        await self.register.close()
        self.canceller.close()
        self.client.close()
        self.workspaces.close()
