"""What ``clasper send --stream`` prints."""

from __future__ import annotations

import io
from typing import Any

import pytest

from clasper_worker.cli.stream import Shown
from clasper_worker.streams.schema import read_event


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(out: io.StringIO, *events: dict[str, Any]) -> str:
    shown = Shown(out)
    for event in events:
        shown.take(read_event("1-0.0", event))
    shown.end_line()
    return out.getvalue()


def chunk(text: str, step: int = 1) -> dict[str, Any]:
    return {"type": "chunk", "data": text, "step": step}


RETRY = {"type": "retry", "step": 1}
DONE = {"type": "done", "response": "Hello"}


def test_text_is_printed_as_it_comes_and_ends_its_line() -> None:
    assert show(io.StringIO(), chunk("Hel"), chunk("lo"), DONE) == "Hello\n"


def test_each_steps_text_has_lines_of_its_own() -> None:
    assert show(io.StringIO(), chunk("I look."), chunk("Here.", 2)) == "I look.\nHere.\n"


def test_where_nothing_can_be_erased_a_line_says_what_is_void() -> None:
    printed = show(io.StringIO(), chunk("Hal"), RETRY, chunk("Hello"))
    first, mark, text = printed.splitlines()
    assert (first, text) == ("Hal", "Hello")
    assert "void" in mark


@pytest.mark.parametrize(
    ("void", "up"), [("Hal", ""), ("one\ntwo\nthr", "\x1b[2A"), ("x" * 90, "\x1b[1A")]
)
def test_on_a_terminal_what_is_void_is_erased(
    monkeypatch: pytest.MonkeyPatch, void: str, up: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    assert show(Terminal(), chunk(void), RETRY, chunk("Hello")) == f"{void}{up}\r\x1b[JHello\n"


def test_a_turn_that_was_not_streamed_is_printed_at_its_end() -> None:
    assert show(io.StringIO(), {"type": "step", "step": 1}, DONE) == "Hello\n"
