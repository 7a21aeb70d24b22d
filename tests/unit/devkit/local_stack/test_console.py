"""The one log of all processes."""

from io import StringIO

import pytest
from rich.text import Text

from clasper_worker.devkit.local_stack.console import StackConsole


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


class Gone(StringIO):
    """A terminal that was closed."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_prefixes_line_up() -> None:
    out = StringIO()
    console = StackConsole(out, ["shim", "worker"])

    console.child("shim", "a")
    console.child("worker", "b")
    console.say("c")

    assert out.getvalue().splitlines() == ["shim    | a", "worker  | b", "clasper | c"]


def test_a_file_gets_no_colours() -> None:
    out = StringIO()

    StackConsole(out, ["shim"]).child("shim", "plain")
    StackConsole(out, ["shim"]).show(Text("bold", "bold red"))

    assert "\x1b" not in out.getvalue()


def test_a_terminal_gets_a_colour_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    console = StackConsole(out, ["shim", "worker"])

    console.child("shim", "x")
    console.child("worker", "x")

    first, second = out.getvalue().splitlines()
    assert first.split("m")[0] != second.split("m")[0]


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()

    StackConsole(out, ["shim"]).child("shim", "plain")

    assert out.getvalue() == "shim    | plain\n"


def test_colours_that_a_process_left_on_end_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()

    StackConsole(out, ["shim"]).child("shim", "\x1b[31mred")

    assert out.getvalue().endswith("\x1b[31mred\x1b[0m\n")


def test_a_closed_terminal_does_not_stop_the_stack() -> None:
    console = StackConsole(Gone(), ["shim"])

    console.child("shim", "lost")
    console.child("shim", "lost too")
