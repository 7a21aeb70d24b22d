"""What a dead letter's reason says to a program: its code, and who has to act."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from clasper_worker.errors import ClasperError

Blame = Literal["caller", "failure"]
"""Whether the caller sent what can never run, or something else failed."""

UNREADABLE = "unreadable"
UNKNOWN_TASK = "unknown_task"
WORKER_LOST = "worker_lost"
OTHER = "other"

_CODE = re.compile(r"([a-z_]{1,64}): ")  # as `Doom` writes it
# How the scheduler and the consumer begin the reasons of what they bury.
_OURS = {
    "its body cannot be decoded": UNREADABLE,
    "lost its worker": WORKER_LOST,
    "no such task": UNKNOWN_TASK,
    "not a message": UNREADABLE,
    "not a task message": UNREADABLE,
    "not a valid task message": UNREADABLE,
}
_CALLERS = frozenset({"invalid_request", "turn_conflict", UNKNOWN_TASK, UNREADABLE})
_NO_SUCH_TASK_ID = "backend_not_found: The backend has no task "


def _codes(kind: type[ClasperError]) -> Iterator[str]:
    yield kind.code
    for narrower in kind.__subclasses__():
        yield from _codes(narrower)


def code_of(reason: str) -> str:
    """The code of the error that a turn failed with, or one of this module's.

    Args:
        reason: of a dead letter.
    """
    begun = _CODE.match(reason)
    if begun and begun[1] in set(_codes(ClasperError)):
        return begun[1]
    return next((code for start, code in _OURS.items() if reason.startswith(start)), OTHER)


def blame_of(reason: str) -> Blame:
    """Who has to act: a caller's mistake fails again however often it is replayed.

    Args:
        reason: of a dead letter.
    """
    if code_of(reason) in _CALLERS or reason.startswith(_NO_SUCH_TASK_ID):
        return "caller"
    return "failure"
