"""Waiting for what other threads and processes do: polling with a deadline.

Only a test that fails ever meets the deadline, so it is far off, whatever the machine is busy with.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

_DEADLINE_SECONDS = 120.0
_FIRST_PAUSE_SECONDS = 0.001
_LONGEST_PAUSE_SECONDS = 0.05  # to look may cost the other side as much as what it is to do
_LOG_CHARS = 4000


def until(condition: Callable[[], T], what: str = "", log: Path | None = None) -> T:
    """Look until it is true, and return what it is; fail the test if it never is.

    Args:
        condition: looked at again and again, with growing pauses.
        what: is to become true, for the failure's text.
        log: a file whose end the failure shows.
    """
    for pause in _pauses():
        if value := condition():
            return value
        time.sleep(pause)
    tail = log.read_text("utf-8", errors="replace")[-_LOG_CHARS:] if log else ""
    pytest.fail(f"not within {_DEADLINE_SECONDS:g} s: {what or condition}\n{tail}")


async def eventually(condition: Callable[[], T], what: str = "") -> T:
    """As `until`, while the event loop goes on."""
    for pause in _pauses():
        if value := condition():
            return value
        await asyncio.sleep(pause)
    pytest.fail(f"not within {_DEADLINE_SECONDS:g} s: {what or condition}")


def _pauses() -> Iterator[float]:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    pause = _FIRST_PAUSE_SECONDS
    while time.monotonic() < deadline:
        yield pause
        pause = min(1.5 * pause, _LONGEST_PAUSE_SECONDS)
