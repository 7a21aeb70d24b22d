"""A workspace as it stood at one moment: frozen data, shared by every turn that runs on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from clasper_worker.prompt.workspace.files import WorkspaceFile
from clasper_worker.prompt.workspace.skills import Skill

AGENTS_FILE = "AGENTS.md"
SOUL_FILE = "SOUL.md"
IDENTITY_FILE = "IDENTITY.md"
HEARTBEAT_FILE = "HEARTBEAT.md"
TOOLS_FILE = "TOOLS.md"
USER_FILE = "USER.md"
BOOT_FILE = "BOOT.md"
MEMORY_FILE = "MEMORY.md"
MEMORY_FOLDER = "memory"

TOP_FILES = (
    AGENTS_FILE,
    SOUL_FILE,
    IDENTITY_FILE,
    HEARTBEAT_FILE,
    TOOLS_FILE,
    USER_FILE,
    BOOT_FILE,
    MEMORY_FILE,
)
"""The files at the top of a workspace, in the order in which they are listed to people."""


@dataclass(frozen=True, slots=True)
class WorkspaceWarning:
    """Something in a workspace that its author should fix; the agent works without it.

    Attributes:
        file: path inside the workspace: ``skills/x/SKILL.md``, or ``.`` for the folder itself.
        problem: what is wrong, what happens instead, how to fix it.
        line: where in the file, from 1, where that is known.
    """

    file: str
    problem: str
    line: int | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.problem}"


@dataclass(frozen=True, slots=True)
class WorkspaceSnapshot:
    """What a workspace says. Never changes: an edit on disk makes a new snapshot.

    Attributes:
        root: the folder it was read from.
        files: those that can be read, skills apart, by name: ``AGENTS.md``, ``souls/writer.md``,
            ``memory/2026-03-31.md``.
        skills: every usable skill by name, on or off, in alphabetical order.
        warnings: what its author should fix, in the order of the files.
        derived: what readers computed from this snapshot, to compute it once; no part of it.
    """

    root: Path
    files: Mapping[str, WorkspaceFile] = field(repr=False)
    skills: Mapping[str, Skill] = field(repr=False)
    warnings: tuple[WorkspaceWarning, ...] = ()
    derived: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def text(self, name: str) -> str | None:
        """The text of file ``name``; None where it is missing, unreadable or blank."""
        file = self.files.get(name)
        return None if file is None or file.is_blank else file.text

    def soul_file(self, role: str) -> str | None:
        """The name of the file that is ``role``'s soul: its own, else ``SOUL.md``, else None."""
        candidates = (soul_path(role), SOUL_FILE)
        return next((name for name in candidates if self.text(name) is not None), None)


def soul_path(role: str) -> str:
    """The path of a role's own soul inside a workspace."""
    return f"souls/{role}.md"


def note_path(day: date) -> str:
    """The path of a day's notes inside a workspace: ``memory/YYYY-MM-DD.md``."""
    return f"{MEMORY_FOLDER}/{day.isoformat()}.md"


def note_day(name: str) -> date | None:
    """The day whose notes the file ``name`` holds; None for any other file."""
    try:
        day = date.fromisoformat(name.removeprefix(f"{MEMORY_FOLDER}/").removesuffix(".md"))
    except ValueError:
        return None
    return day if note_path(day) == name else None
