"""The one log of all processes: whole lines, each behind its process's name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TextIO

import click
from rich.console import Console, RenderableType

STACK_NAME = "clasper"
_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green")
_FILE_WIDTH = 120


class StackConsole:
    """Writes the log and what the stack itself has to say.

    Args:
        stream: where to.
        names: of the processes, for the width and colour of the prefixes.
        colour: whether to use colours; None: where the stream is a terminal and NO_COLOR unset.
    """

    def __init__(self, stream: TextIO, names: Sequence[str], *, colour: bool | None = None) -> None:
        self._stream = stream
        if colour is None:
            colour = stream.isatty() and not os.environ.get("NO_COLOR")
        self._colour = colour
        self._width = max(len(name) for name in (*names, STACK_NAME))
        self._styles = dict(zip(names, _COLOURS * len(names), strict=False))

    def child(self, name: str, line: str) -> None:
        """One line that a process wrote."""
        self._write(self._prefixed(name, line, self._styles.get(name)))

    def say(self, text: str) -> None:
        """One line of the stack itself."""
        self._write(self._prefixed(STACK_NAME, text, "bright_white", bold=True))

    def show(self, renderable: RenderableType, *, wrap: bool = True) -> None:
        """Something that rich can draw, such as the banner; ``wrap``: fitted to the terminal."""
        drawn = StringIO()
        width = None if self._colour else _FILE_WIDTH
        console = Console(file=drawn, force_terminal=self._colour, width=width, highlight=False)
        console.print(renderable, soft_wrap=not wrap)
        lines = (line.rstrip() for line in drawn.getvalue().splitlines())
        self._write("\n".join(lines) + "\n")

    def _prefixed(self, name: str, text: str, style: str | None, *, bold: bool = False) -> str:
        prefix = f"{name:<{self._width}} |"
        if self._colour:
            prefix = click.style(prefix, fg=style, bold=bold)
            text = click.style(text, bold=True) if bold else f"{text}\x1b[0m"
        return f"{prefix} {text}\n"

    def _write(self, text: str) -> None:
        try:
            # One write a line: lines of different processes never mix.
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            # The terminal is gone (`clasper up | head`); the processes must still be stopped.
            # What is buffered goes nowhere, or Python would complain of it when it exits.
            with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
