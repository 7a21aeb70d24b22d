"""The workspaces of one worker: the default one, and those that the operator allows by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import structlog

from clasper_worker.errors import InvalidRequestError, WorkspaceError
from clasper_worker.prompt.workspace.snapshot import WorkspaceSnapshot
from clasper_worker.prompt.workspace.watcher import Watcher, process_watcher
from clasper_worker.prompt.workspace.workspace import Prepare, Workspace

DEFAULT_NAME = "default"
"""The name under which a request may ask for ``CLASPER_WORKSPACE``."""

log = structlog.get_logger(__name__)


class Workspaces:
    """Which workspace a turn runs on, by name from an allow-list (``CLASPER_WORKSPACES``).

    A request names one in ``metadata.workspace``. Where it names none, a workspace of the tenant's
    own name (its ``user_id``) is the tenant's; else the default one is used. Made by `open`.
    """

    def __init__(
        self,
        default: Workspace,
        named: Mapping[str, Path],
        prepare: Prepare | None,
        watcher: Watcher,
    ) -> None:
        self._prepare = prepare
        self._watcher = watcher
        self._paths = dict(named)
        self._open = {DEFAULT_NAME: default}
        self._awaited: dict[str, _Awaited] = {}
        self._closed = False

    @classmethod
    def open(
        cls,
        default: Path,
        named: Mapping[str, Path] | None = None,
        prepare: Prepare | None = None,
        *,
        watcher: Watcher | None = None,
    ) -> Self:
        """Read all workspaces and watch them until `close`.

        A named one that is not there is an error for those who ask for it, until the watcher has
        found it and read it.

        Args:
            default: the default workspace's folder.
            named: the others' folders by name.
            prepare: as in `Workspace.open`.
            watcher: who watches; the process's one when omitted.

        Raises:
            WorkspaceError: the default workspace is not there.
        """
        watcher = watcher or process_watcher()
        opened = Workspace.open(default, watcher=watcher, prepare=prepare)
        workspaces = cls(opened, named or {}, prepare, watcher)
        for name in workspaces._paths:
            try:
                workspaces._read(name)
            except WorkspaceError as exc:
                log.error("workspace_missing", name=name, reason=str(exc))  # noqa: TRY400 - no fault of ours
                awaited = workspaces._awaited[name] = _Awaited(workspaces, name)
                watcher.add(awaited)
        return workspaces

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that a request may give."""
        return (DEFAULT_NAME, *self._paths)

    def name_for(self, asked: str | None, user_id: str) -> str:
        """The name of a turn's workspace.

        Raises:
            InvalidRequestError: the request asks for one that is not allowed.
        """
        if asked is None:
            return user_id if user_id in self._paths else DEFAULT_NAME
        if asked in self.names:
            return asked
        field = {
            "field": "metadata.workspace",
            "problem": "is not the name of a workspace of this worker",
            "fix": "leave it out, or have the operator add it to CLASPER_WORKSPACES",
        }
        raise InvalidRequestError(
            f"Invalid send request: {field['field']}: {field['problem']} ({field['fix']})",
            {"fields": [field]},
        )

    def snapshot(self, asked: str | None, user_id: str) -> WorkspaceSnapshot:
        """What the turn's workspace says now; touches no file.

        Raises:
            InvalidRequestError: the request asks for one that is not allowed.
            WorkspaceError: its folder is not there.
        """
        name = self.name_for(asked, user_id)
        workspace = self._open.get(name)
        if workspace is None:
            raise _missing(name, self._paths[name])
        return workspace.current()

    def close(self) -> None:
        """Stop watching them."""
        self._closed = True
        for awaited in self._awaited.values():
            self._watcher.remove(awaited)
        for workspace in tuple(self._open.values()):
            workspace.close()

    def look_for(self, name: str) -> None:
        """Read a workspace that was not there, if it is now; for the watcher."""
        try:
            workspace = self._read(name)
        except WorkspaceError:
            return
        self._watcher.remove(self._awaited[name])
        if self._closed:  # while it was read
            workspace.close()

    def _read(self, name: str) -> Workspace:
        path = self._paths[name]
        workspace = Workspace.open(path, watcher=self._watcher, prepare=self._prepare)
        self._open[name] = workspace
        return workspace


class _Awaited:
    """A named workspace that is not there yet, as the watcher sees it."""

    def __init__(self, workspaces: Workspaces, name: str) -> None:
        self._workspaces = workspaces
        self._name = name

    def look(self) -> bool:
        """Look for it once."""
        self._workspaces.look_for(self._name)
        return False


def _missing(name: str, path: Path) -> WorkspaceError:
    return WorkspaceError(
        f"The workspace {name!r} (CLASPER_WORKSPACES) is not there: {path}. Make one with"
        f" `clasper init {path}`, or mount it; it is found within seconds, without a restart.",
        {"variable": "CLASPER_WORKSPACES", "path": str(path)},
    )
