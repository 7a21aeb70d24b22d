"""Memory cut into pieces that can be told to the agent one by one.

Pure: text in, `MemoryChunk`s out. A piece is a section of the file, or part of a long one, cut
between paragraphs where that is possible. It begins with the headings that it stands under, so
that it can be understood, and found, by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from clasper_worker.prompt.workspace.snapshot import MEMORY_FILE, WorkspaceSnapshot, note_day

CHUNK_CHARS = 1_000
"""Characters of one piece, its headings not counted."""

_DEEPEST_HEADING = 6
_CODE_FENCE = re.compile(r"\s{0,3}(```|~~~)")


@dataclass(frozen=True, slots=True)
class MemoryChunk:
    """One piece of a memory file.

    Attributes:
        file: path inside the workspace: ``MEMORY.md`` or ``memory/2026-03-31.md``.
        line: where in the file it begins, from 1.
        headings: those that it stands under, from the outermost to its own.
        text: what is said there, without the headings.
    """

    file: str
    line: int
    headings: tuple[str, ...] = field(repr=False)
    text: str = field(repr=False)

    @property
    def name(self) -> str:
        """The piece's name: file and line."""
        return f"{self.file}:{self.line}"

    @property
    def told(self) -> str:
        """The piece as the agent reads it: its headings in one line, then its text."""
        return f"{' › '.join(self.headings)}\n{self.text}" if self.headings else self.text  # noqa: RUF001 - a sign that no heading holds


def memory_chunks(snapshot: WorkspaceSnapshot) -> tuple[MemoryChunk, ...]:
    """Every piece of memory in a workspace: ``MEMORY.md``, then the days from the newest on."""
    days = sorted((name for name in snapshot.files if note_day(name) is not None), reverse=True)
    return tuple(
        chunk
        for name in (MEMORY_FILE, *days)
        if (text := snapshot.text(name)) is not None
        for chunk in split_memory(name, text)
    )


def split_memory(file: str, text: str) -> Iterator[MemoryChunk]:
    """Cut one memory file into pieces of at most `CHUNK_CHARS` characters.

    Args:
        file: its path inside the workspace.
        text: what it says, LF line ends.
    """
    for line, headings, section in _sections(text):
        for offset, piece in _pieces(section):
            yield MemoryChunk(file, line + offset, headings, piece)


def _sections(text: str) -> Iterator[tuple[int, tuple[str, ...], list[str]]]:
    """Each heading's own lines: the first one's number, the headings above, the lines."""
    headings: list[tuple[int, str]] = []
    lines: list[str] = []
    first = 1
    in_code = False
    for number, line in enumerate(text.split("\n"), start=1):
        if _CODE_FENCE.match(line):
            in_code = not in_code
        heading = None if in_code else _heading(line)
        if heading is None:
            lines.append(line)
            continue
        yield first, tuple(title for _, title in headings), lines
        headings = [item for item in headings if item[0] < heading[0]]
        headings.append(heading)
        first, lines = number + 1, []
    yield first, tuple(title for _, title in headings), lines


def _heading(line: str) -> tuple[int, str] | None:
    """The level and title of a heading such as ``## Title ##``; None for any other line."""
    level = len(line) - len(line.lstrip("#"))
    title = line[level:]
    if not 1 <= level <= _DEEPEST_HEADING or not title[:1].isspace():
        return None
    return level, title.strip().rstrip("#").rstrip()


def _pieces(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Parts of at most `CHUNK_CHARS`, each with the offset of its first line."""
    start, paragraph_end, size = 0, 0, 0
    for index, line in enumerate(lines):
        if size + len(line) + 1 > CHUNK_CHARS and index > start:
            # At the last blank line where there was one, else right here.
            end = paragraph_end if paragraph_end > start else index
            yield from _piece(lines, start, end)
            start = end
            size = sum(len(item) + 1 for item in lines[start:index])
        size += len(line) + 1
        if not line.strip():
            paragraph_end = index + 1
    yield from _piece(lines, start, len(lines))


def _piece(lines: list[str], start: int, end: int) -> Iterator[tuple[int, str]]:
    while start < end and not lines[start].strip():
        start += 1
    text = "\n".join(lines[start:end]).rstrip()
    # A single line that is too long is cut between its words, or where it must be.
    told = 0
    while len(text) - told > CHUNK_CHARS:
        cut = text.rfind(" ", told + 1, told + CHUNK_CHARS + 1)
        cut = cut if cut > 0 else told + CHUNK_CHARS
        yield start, text[told:cut].rstrip()
        told = cut
        while told < len(text) and text[told].isspace():
            told += 1
    if told < len(text):
        yield start, text[told:]
