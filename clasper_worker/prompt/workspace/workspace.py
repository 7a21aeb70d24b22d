"""A workspace that is open: its current snapshot, kept up to date in the background.

A turn calls `Workspace.current` and works on what it gets: plain data in memory. No file is
touched on a turn's path, not even by a stat; the watcher's thread does all of that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import structlog

from clasper_worker.errors import WorkspaceError
from clasper_worker.prompt.workspace.reader import Look, WorkspaceReader
from clasper_worker.prompt.workspace.skills import Host, this_host
from clasper_worker.prompt.workspace.snapshot import WorkspaceSnapshot, WorkspaceWarning
from clasper_worker.prompt.workspace.watcher import Watcher, process_watcher

MAX_SETTLE_SEC = 1.0
"""A change is taken after this long even when files keep changing."""

_RECHECK_SEC = 2.5
# File systems that keep times in whole seconds show two saves within one second as one: after a
# change, the files are read once more when that can no longer be.

Prepare = Callable[[WorkspaceSnapshot], None]
"""Computes what turns will need of a snapshot, into its ``derived``."""

_log = structlog.get_logger(__name__)


def _nothing(_: WorkspaceSnapshot) -> None:
    """Prepare nothing."""


@dataclass(frozen=True, slots=True)
class _Unsettled:
    look: Look
    since: float


class Workspace:
    """One open workspace. Made by `open`; `close` it when done, or use it in a ``with``.

    `current` may be called from any thread and from coroutines.
    """

    def __init__(
        self,
        path: Path,
        host: Host,
        clock: Callable[[], float] = time.monotonic,
        prepare: Prepare | None = None,
    ) -> None:
        self.path = path
        self._clock = clock
        self._prepare = prepare or _nothing
        self._reader = WorkspaceReader(path, host)
        self._taken = self._reader.look()
        self._snapshot = self._reader.read(self._taken)
        self._prepare(self._snapshot)
        self._unsettled: _Unsettled | None = None
        self._recheck_at: float | None = clock() + _RECHECK_SEC
        self._gone = False
        self._watcher: Watcher | None = None
        _log_new(self._snapshot.warnings, ())

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        host: Host | None = None,
        watcher: Watcher | None = None,
        prepare: Prepare | None = None,
    ) -> Self:
        """Read the workspace at ``path`` and watch it until `close`.

        Args:
            path: the folder; a relative one counts from the working directory of this moment.
            host: what skills are gated on; this machine when omitted.
            watcher: who watches; the process's one when omitted.
            prepare: called with each new snapshot before a turn sees it, here and then in the
                watcher's thread; must not raise.

        Raises:
            WorkspaceError: the folder does not exist or is none; says how to make one.
        """
        workspace = cls(Path(path).absolute(), host or this_host(), prepare=prepare)
        workspace._watcher = watcher or process_watcher()
        workspace._watcher.add(workspace)
        return workspace

    def close(self) -> None:
        """Stop watching. `current` keeps answering with the last snapshot."""
        if self._watcher is not None:
            self._watcher.remove(self)
            self._watcher = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def current(self) -> WorkspaceSnapshot:
        """The workspace as last read; touches no file."""
        return self._snapshot

    def look(self) -> bool:
        """Look for changes once, for the watcher: one thread only.

        A change is taken when two looks in a row see the same, so that a save under way, or a
        checkout of many files, is taken whole.

        Returns:
            Whether a change was seen that has not settled yet.
        """
        try:
            look = self._reader.look()
        except WorkspaceError as exc:
            if not self._gone:
                _log.warning("workspace_gone", error=str(exc), kept="the last version")
            self._gone, self._unsettled = True, None
            return False
        self._gone = False
        now = self._clock()
        if look != self._taken:
            before = self._unsettled
            since = now if before is None else before.since
            settled = before is not None and before.look == look
            if not settled and now - since < MAX_SETTLE_SEC:
                self._unsettled = _Unsettled(look, since)
                return True
            self._recheck_at = now + _RECHECK_SEC
            self._take(look)
        elif self._recheck_at is not None and now >= self._recheck_at:
            self._recheck_at = None
            self._take(look, again=True)
        else:
            self._swap(self._reader.gate_again(self._snapshot))
        self._unsettled = None
        return False

    def _take(self, look: Look, *, again: bool = False) -> None:
        self._swap(self._reader.read(look, again=again))
        self._taken = look

    def _swap(self, snapshot: WorkspaceSnapshot) -> None:
        previous = self._snapshot
        if snapshot == previous:
            return
        self._prepare(snapshot)
        self._snapshot = snapshot
        _log.info(
            "workspace_changed", workspace=str(self.path), changed=_changed(previous, snapshot)
        )
        _log_new(snapshot.warnings, previous.warnings)


def _changed(before: WorkspaceSnapshot, after: WorkspaceSnapshot) -> list[str]:
    """Names of the files and skills that differ."""
    names = {
        name
        for name in before.files.keys() | after.files.keys()
        if before.files.get(name) != after.files.get(name)
    }
    for name in before.skills.keys() | after.skills.keys():
        old, new = before.skills.get(name), after.skills.get(name)
        if old != new:
            names.update(skill.file for skill in (old, new) if skill is not None)
    return sorted(names)


def _log_new(warnings: tuple[WorkspaceWarning, ...], known: tuple[WorkspaceWarning, ...]) -> None:
    for warning in warnings:
        if warning not in known:
            _log.warning(
                "workspace_warning", file=warning.file, line=warning.line, problem=warning.problem
            )
