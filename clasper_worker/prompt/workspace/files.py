"""Reading one workspace file: inside the workspace, UTF-8, at most `MAX_FILE_CHARS` characters."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from clasper_worker.prompt.sanitize import shorten

MAX_FILE_CHARS = 20_000
"""Characters of one file that reach the prompt, the marker of a cut included."""

MAX_FILE_BYTES = 32 * 1024 * 1024
"""Larger files are not read at all: a workspace file of this size is a mistake."""

_CHUNK_CHARS = 1024 * 1024
_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)  # the path is already resolved: a link now is a swap
    | getattr(os, "O_NONBLOCK", 0)  # a FIFO must not hang the reader
)


class UnreadableFileError(Exception):
    """A workspace file that cannot be used; the message says why and how to fix it."""


@dataclass(frozen=True, slots=True)
class WorkspaceFile:
    """One file as the prompt takes it.

    Attributes:
        name: path inside the workspace, ``/`` separated: ``souls/writer.md``.
        text: its text, LF line ends, without byte order mark, cut to `MAX_FILE_CHARS`.
        raw_chars: characters in the file before the cut.
    """

    name: str
    text: str = field(repr=False)
    raw_chars: int

    @property
    def truncated(self) -> bool:
        """Whether the file was too long and was cut."""
        return self.raw_chars > MAX_FILE_CHARS

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing but white space in it."""
        return not self.text.strip()


def read_file(root: Path, name: str) -> WorkspaceFile:
    """Read ``name`` below ``root``.

    Symbolic links are followed as long as they stay inside the workspace.

    Args:
        root: the workspace folder.
        name: path inside it, ``/`` separated.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: it leaves the workspace, is no regular file, is too large, or is not
            UTF-8 text.
    """
    real = resolve_inside(root, name)
    try:
        descriptor = os.open(real, _OPEN_FLAGS)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise UnreadableFileError(f"cannot be opened: {exc.strerror}") from exc
    try:
        _check_kind(os.fstat(descriptor))
        stream = os.fdopen(descriptor, encoding="utf-8", newline=None)
    except BaseException:
        os.close(descriptor)
        raise
    with stream:
        try:
            head, raw_chars = _read_head(stream)
        except UnicodeDecodeError as exc:
            raise UnreadableFileError(
                f"is not UTF-8 text (byte {exc.object[exc.start]:#04x}); save it as UTF-8"
            ) from exc
        except OSError as exc:
            raise UnreadableFileError(f"cannot be read: {exc.strerror}") from exc
    marker = (
        f"\n\n[{name} was cut here: it has {raw_chars:,} characters,"
        f" of which at most {MAX_FILE_CHARS:,} are used.]"
    )
    text = shorten(head, MAX_FILE_CHARS, marker) if raw_chars > MAX_FILE_CHARS else head
    return WorkspaceFile(name, text, raw_chars)


def resolve_inside(root: Path, name: str) -> str:
    """Resolve ``name`` below ``root``, links and all.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: it is not below ``root``, or cannot be reached.
    """
    real_root = os.path.realpath(root)
    try:
        real = os.path.realpath(Path(root, name), strict=True)
    except FileNotFoundError:
        raise
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise UnreadableFileError("is a symbolic link that leads back to itself") from exc
        raise UnreadableFileError(f"cannot be reached: {exc.strerror}") from exc
    except ValueError as exc:  # a NUL in the name
        raise UnreadableFileError("is not a usable file name") from exc
    if not Path(real).is_relative_to(real_root):
        raise UnreadableFileError("leads out of the workspace; copy the file into it")
    return real


def _check_kind(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableFileError("is not a regular file")
    if status.st_size > MAX_FILE_BYTES:
        raise UnreadableFileError(
            f"has {status.st_size:,} bytes; at most {MAX_FILE_BYTES:,} are read"
        )


def _read_head(stream: TextIO) -> tuple[str, int]:
    """The first `MAX_FILE_CHARS` + 1 characters, and how many there are in all."""
    head, count = "", 0
    # Not by the codec utf-8-sig: that one takes a file of the mark's first bytes for an empty one.
    chunk = stream.read(_CHUNK_CHARS).removeprefix("\ufeff")
    while chunk:
        if "\0" in chunk:
            raise UnreadableFileError("holds NUL bytes, so it is not a text file")
        if len(head) <= MAX_FILE_CHARS:
            head += chunk[: MAX_FILE_CHARS + 1 - len(head)]
        count += len(chunk)
        chunk = stream.read(_CHUNK_CHARS)
    return head, count
