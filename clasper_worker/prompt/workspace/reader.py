"""Reading a workspace folder into a `WorkspaceSnapshot`, and reading again only what changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from clasper_worker.errors import WorkspaceError
from clasper_worker.prompt.roles import validate_role
from clasper_worker.prompt.workspace.files import (
    MAX_FILE_CHARS,
    UnreadableFileError,
    WorkspaceFile,
    read_file,
    resolve_inside,
)
from clasper_worker.prompt.workspace.skill_file import SkillError, parse_skill
from clasper_worker.prompt.workspace.skills import Host, Skill, gate
from clasper_worker.prompt.workspace.snapshot import (
    AGENTS_FILE,
    MEMORY_FOLDER,
    SOUL_FILE,
    TOP_FILES,
    WorkspaceSnapshot,
    WorkspaceWarning,
    note_day,
)
from clasper_worker.text.whole_text import is_damaged, whole

Stamp = tuple[int, ...]
"""What tells a changed file from an unchanged one without reading it."""

Look = Mapping[str, Stamp]
"""Every file of a workspace that exists, by name, with its stamp."""

_ABSENT: Stamp = (0,)
_SOULS = "souls"
_SKILLS = "skills"
_FOLDERS = (_SOULS, MEMORY_FOLDER, _SKILLS)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One file as last read: its last good version, and what is wrong with it now."""

    stamp: Stamp
    file: WorkspaceFile | None = None
    skill: Skill | None = None
    warning: WorkspaceWarning | None = None


class WorkspaceReader:
    """Reads one workspace; keeps each file's last good version. Not for several threads at once.

    Args:
        root: the workspace folder. Where it is a symbolic link, the link is followed anew at each
            look, so a deployment that switches the link switches the workspace.
        host: the machine that skills are gated on.
    """

    def __init__(self, root: Path, host: Host) -> None:
        self.root = root
        self._host = host
        self._entries: dict[str, _Entry] = {}

    def look(self) -> Look:
        """List the files and their stamps: directory listings and stats, no reading.

        Raises:
            WorkspaceError: the folder is not there, or is none.
        """
        if not os.path.isdir(self.root):  # noqa: PTH112 - False, not an error, where it is forbidden
            raise missing_workspace(self.root)
        names = (*TOP_FILES, *(name for folder in _FOLDERS for name in self._names_in(folder)))
        root = os.fspath(self.root)
        stamps = ((name, _stamp(f"{root}/{name}")) for name in names)
        return {name: stamp for name, stamp in stamps if stamp is not None}

    def read(self, look: Look, *, again: bool = False) -> WorkspaceSnapshot:
        """Make the snapshot of what ``look`` found.

        A file that became unusable keeps its last good version, with a warning.

        Args:
            look: from `look`.
            again: read also the files whose stamp is the same as when they were last read.
        """
        entries: dict[str, _Entry] = {}
        for name, stamp in look.items():
            known = self._entries.get(name)
            if known is not None and known.stamp == stamp and not again:
                entries[name] = known
            else:
                entries[name] = self._read_entry(name, stamp, known)
        self._entries = entries
        return self._assemble()

    def gate_again(self, snapshot: WorkspaceSnapshot) -> WorkspaceSnapshot:
        """The same snapshot if every skill is still on or off as it was, else one that is right."""
        skills = {skill.name: skill for skill in gate(tuple(snapshot.skills.values()), self._host)}
        if skills == snapshot.skills:
            return snapshot
        return replace(snapshot, skills=MappingProxyType(skills), derived={})

    def _names_in(self, folder: str) -> list[str]:
        """The files of interest below one of the folders.

        Where the folder cannot be listed: itself, for its warning, and the files known from
        before, whose last good version stays.
        """
        try:
            resolve_inside(self.root, folder)
            with os.scandir(self.root / folder) as entries:
                return sorted(filter(None, (_name_of(folder, entry) for entry in entries)))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (OSError, UnreadableFileError):
            return [folder, *(name for name in self._entries if name.startswith(f"{folder}/"))]

    def _read_entry(self, name: str, stamp: Stamp, known: _Entry | None) -> _Entry:
        kept = replace(known, stamp=stamp) if known else _Entry(stamp)
        good = kept.file is not None
        instead = "the last good version stays in use" if good else "it is left out"
        shown = whole(name)
        try:
            _check_name(self.root, name)
            file = read_file(self.root, name)
            skill = parse_skill(name, file.text) if name.startswith(f"{_SKILLS}/") else None
        except FileNotFoundError:
            return _Entry(stamp, warning=WorkspaceWarning(shown, "is missing; it is left out"))
        except UnreadableFileError as exc:
            return replace(kept, warning=WorkspaceWarning(shown, f"{exc}; {instead}"))
        except SkillError as exc:
            warning = WorkspaceWarning(shown, f"{exc.problem}; {instead}", exc.line)
            return replace(kept, warning=warning)
        return _Entry(stamp, file, skill, _size_warning(file) or _doubts(skill))

    def _assemble(self) -> WorkspaceSnapshot:
        entries = self._entries
        warnings = [*_missing_warnings(entries)]
        warnings += [entry.warning for entry in entries.values() if entry.warning]
        skills: dict[str, Skill] = {}
        for entry in entries.values():
            if entry.skill is None:
                continue
            first = skills.setdefault(entry.skill.name, entry.skill)
            if first is not entry.skill:
                problem = f"has the same name as {first.file}; it is left out; rename one of them"
                warnings.append(WorkspaceWarning(entry.skill.file, problem))
        ordered = gate([skills[name] for name in sorted(skills)], self._host)
        return WorkspaceSnapshot(
            root=self.root,
            files=MappingProxyType(
                {
                    name: entry.file
                    for name, entry in entries.items()
                    if entry.file is not None and entry.skill is None
                }
            ),
            skills=MappingProxyType({skill.name: skill for skill in ordered}),
            warnings=tuple(warnings),
        )


def missing_workspace(root: Path) -> WorkspaceError:
    """The error for a workspace folder that is not there, or is none."""
    problem = "is not a folder" if os.path.exists(root) else "does not exist"  # noqa: PTH110 - as above
    return WorkspaceError(
        f"The workspace folder {str(root)!r} {problem}. Make one there with `clasper init {root}`,"
        " or set CLASPER_WORKSPACE to the folder that holds AGENTS.md.",
        {"variable": "CLASPER_WORKSPACE", "path": str(root)},
    )


def _name_of(folder: str, entry: os.DirEntry[str]) -> str | None:
    if entry.name.startswith("."):
        return None
    if folder != _SKILLS:
        return f"{folder}/{entry.name}" if entry.name.endswith(".md") else None
    # A link is taken for a folder: one that leads nowhere gets a warning.
    return f"{folder}/{entry.name}/SKILL.md" if entry.is_symlink() or entry.is_dir() else None


def _stamp(path: str) -> Stamp | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - hundreds of these a second: pathlib costs double
    except FileNotFoundError:
        # A skill's folder without SKILL.md is a mistake worth a warning; other files are optional.
        return _ABSENT if path.endswith("/SKILL.md") else None
    except OSError as exc:  # a loop, no permission: read_file says which
        return (-1, exc.errno or 0)
    return (
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_size,
        status.st_ino,
        status.st_dev,
    )


def _check_name(root: Path, name: str) -> None:
    if is_damaged(name):
        raise UnreadableFileError("has a name that is not UTF-8; rename it")
    if name in _FOLDERS:
        resolve_inside(root, name)
        raise UnreadableFileError("cannot be listed")
    folder, _, file = name.partition("/")
    if folder == _SOULS:
        try:
            validate_role(file.removesuffix(".md"))
        except ValueError as exc:
            raise UnreadableFileError(f"is no role's soul ({exc})") from None
    if folder == MEMORY_FOLDER and note_day(name) is None:
        raise UnreadableFileError(
            "is no day's notes; name it after the day, memory/2026-03-31.md, or use MEMORY.md"
        )


def _doubts(skill: Skill | None) -> WorkspaceWarning | None:
    if skill is None or not skill.doubts:
        return None
    line = skill.doubts[0][0]
    return WorkspaceWarning(skill.file, "; ".join(problem for _, problem in skill.doubts), line)


def _size_warning(file: WorkspaceFile) -> WorkspaceWarning | None:
    if not file.truncated:
        return None
    problem = (
        f"has {file.raw_chars:,} characters and was cut to {MAX_FILE_CHARS:,};"
        " shorten it, or move parts into skills"
    )
    return WorkspaceWarning(file.name, problem)


def _missing_warnings(entries: Mapping[str, _Entry]) -> Iterator[WorkspaceWarning]:
    def usable(name: str) -> bool:
        file = entries[name].file if name in entries else None
        return file is not None and not file.is_blank

    if not usable(AGENTS_FILE):
        state = "is empty or unusable" if AGENTS_FILE in entries else "is missing"
        problem = f"{state}; built-in operating rules are used; write one, or run `clasper init`"
        yield WorkspaceWarning(AGENTS_FILE, problem)
    if not any(usable(name) for name in entries if _is_soul(name)):
        problem = (
            "no soul here nor in souls/<role>.md; a built-in one is used;"
            " write one, or run `clasper init`"
        )
        yield WorkspaceWarning(SOUL_FILE, problem)


def _is_soul(name: str) -> bool:
    return name == SOUL_FILE or name.startswith(f"{_SOULS}/")
