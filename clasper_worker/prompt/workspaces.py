"""The workspaces of one worker: the default one, and those that the operator allows by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import structlog

from clasper_worker.errors import InvalidRequestError, WorkspaceError
from clasper_worker.prompt.snapshot import WorkspaceSnapshot
from clasper_worker.prompt.workspace import Prepare, Workspace

DEFAULT_NAME = "default"
"""The name under which a request may ask for ``CLASPER_WORKSPACE``."""

log = structlog.get_logger(__name__)


class Workspaces:
    """Which workspace a turn runs on, by name from an allow-list (``CLASPER_WORKSPACES``).

    A request names one in ``metadata.workspace``. Where it names none, a workspace of the tenant's
    own name (its ``user_id``) is the tenant's; else the default one is used. Made by `open`.
    """

    def __init__(
        self, default: Workspace, named: Mapping[str, Path], prepare: Prepare | None
    ) -> None:
        self._prepare = prepare
        self._paths = dict(named)
        self._open = {DEFAULT_NAME: default}

    @classmethod
    def open(
        cls, default: Path, named: Mapping[str, Path] | None = None, prepare: Prepare | None = None
    ) -> Self:
        """Read all workspaces and watch them until `close`.

        A named one that is not there is an error for those who ask for it, each time until it is.

        Args:
            default: the default workspace's folder.
            named: the others' folders by name.
            prepare: as in `Workspace.open`.

        Raises:
            WorkspaceError: the default workspace is not there.
        """
        workspaces = cls(Workspace.open(default, prepare=prepare), named or {}, prepare)
        for name in workspaces._paths:
            try:
                workspaces._opened(name)
            except WorkspaceError as exc:
                log.error("workspace_missing", name=name, reason=str(exc))  # noqa: TRY400 - no fault of ours
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
        """What the turn's workspace says now; touches no file where it is open.

        Raises:
            InvalidRequestError: the request asks for one that is not allowed.
            WorkspaceError: its folder is not there.
        """
        return self._opened(self.name_for(asked, user_id)).current()

    def close(self) -> None:
        """Stop watching them."""
        for workspace in self._open.values():
            workspace.close()

    def _opened(self, name: str) -> Workspace:
        workspace = self._open.get(name)
        if workspace is None:
            workspace = Workspace.open(self._paths[name], prepare=self._prepare)
            self._open[name] = workspace
        return workspace
