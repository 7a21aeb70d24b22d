"""The standard turn of the benchmark, its expected reply, and the check of what was posted.

Each turn is of another user, in a conversation that the worker has not seen in the last half
minute: that is what most turns of people are. It makes exactly three HTTP calls:

1. ``GET /api/mission-control/tasks``: find the task by its title,
2. ``POST /v1/chat/completions``: ask the model,
3. ``POST /api/mission-control/messages``: post the reply.

The prompt is that of the repository's own ``workspace/`` with every tool offered. The backend has
the contract's required features; its capabilities are asked for once a minute.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MARK_START = b"[[turn:"
MARK_END = b"]]"
ROLE = "writer"
TITLE = "Conversation"

_QUESTION = (
    "Please summarise what changed in this project since Monday, in three short points, and say"
    " what you would do next and why. Keep it plain, since the whole team will read it today."
)
_FILLER = (
    "Three things changed since Monday. The northern figures are in and two suppliers have"
    " confirmed their new dates. The third has asked for more time, which moves the delivery by"
    " a week at most. Next I would settle that date, since everything after it depends on it."
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: its number, and a token that no other has."""

    number: int
    token: str

    @property
    def user_id(self) -> str:
        """The user that it is for, and nobody else's turn."""
        return f"user-{self.token[7:-2]}"

    def request(self, history: Sequence[Mapping[str, str]] = ()) -> dict[str, Any]:
        """The send request; with ``history`` it carries the conversation itself."""
        fields: dict[str, Any] = {
            "user_id": self.user_id,
            "session_key": f"user:{self.user_id}:{ROLE}",
            "message": f"{_QUESTION} {self.token}",
            "task_title": TITLE,
        }
        if history:
            fields["messages"] = list(history)
        return fields


def make_turns(count: int) -> list[Turn]:
    """New turns, with tokens of their own."""
    batch = secrets.token_hex(4)
    mark, end = MARK_START.decode(), MARK_END.decode()
    return [Turn(number, f"{mark}{batch}-{number}{end}") for number in range(count)]


def reply_to(token: str) -> str:
    """The reply that the model gives, which is the one that has to be posted."""
    return f"{_FILLER} {token}"


@dataclass(slots=True)
class Faults:
    """What went wrong; a benchmark with any fault has failed."""

    missing: int = 0
    wrong: int = 0
    doubled: int = 0
    failed: int = 0
    unacknowledged: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def any(self) -> bool:
        """Whether there is one."""
        counted = self.missing + self.wrong + self.doubled + self.failed + self.unacknowledged
        return bool(counted or self.notes)

    def add(self, other: Faults) -> None:
        """Count the other's as well."""
        self.missing += other.missing
        self.wrong += other.wrong
        self.doubled += other.doubled
        self.failed += other.failed
        self.unacknowledged += other.unacknowledged
        self.notes += other.notes

    def __str__(self) -> str:
        counts = (
            f"{self.missing} missing, {self.wrong} wrong, {self.doubled} doubled replies,"
            f" {self.failed} failed turns, {self.unacknowledged} unacknowledged notifications"
        )
        return "; ".join([counts, *self.notes[:5]])


Post = tuple[float, str, str, str]
"""What the backend stored: when (monotonic seconds), the user, the task's id, the content."""


def check_posts(turns: Iterable[Turn], posts: Iterable[Post]) -> Faults:
    """Whether every turn's own reply was posted once, in its user's task, and nothing else."""
    expected = {(t.user_id, f"task-{t.user_id}-{TITLE}", reply_to(t.token)) for t in turns}
    found = Counter((user, task_id, content) for _, user, task_id, content in posts)
    return Faults(
        missing=len(expected - found.keys()),
        wrong=len(found.keys() - expected),
        doubled=sum(count - 1 for count in found.values()),
    )


def post_times(posts: Iterable[Post]) -> dict[str, float]:
    """When each user's reply arrived."""
    return {user: stamp for stamp, user, _, _ in posts}
