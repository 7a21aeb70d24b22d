"""The notifications of the benchmark, and the check of what became of them."""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from turns import MARK_END, MARK_START, ROLE, TITLE, Faults, Post, reply_to

Acknowledgement = tuple[float, str, str]
"""What the backend was told: when (monotonic seconds), the user, the notification's id."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One notification, and a token that no other has."""

    user_id: str
    number: int
    token: str

    @property
    def notification_id(self) -> str:
        """Its id, and no other's."""
        return f"n-{self.token[7:-2]}"

    @property
    def post(self) -> tuple[str, str, str]:
        """The one reply that it should have: the user, the task's id, the content."""
        return self.user_id, f"task-{self.user_id}-{TITLE}", reply_to(self.token)

    def delivery(self) -> dict[str, Any]:
        """It as the backend gives it to a dispatcher."""
        return {
            "notification_id": self.notification_id,
            "user_id": self.user_id,
            "session_key": f"user:{self.user_id}:{ROLE}",
            "content": f"Task {self.number} is yours now: please say how you will go about it."
            f" {self.token}",
            "task_title": TITLE,
        }


def make_notifications(users: int, each: int) -> list[Notification]:
    """New notifications, as many for each of new users; each user's are of one session."""
    batch = secrets.token_hex(4)
    mark, end = MARK_START.decode(), MARK_END.decode()
    return [
        Notification(f"notified-{batch}-{user}", number, f"{mark}{batch}-{user}-{number}{end}")
        for number in range(each)
        for user in range(users)
    ]


def check_answers(
    notifications: Sequence[Notification],
    posts: Iterable[Post],
    acknowledged: Iterable[Acknowledgement],
    model_calls: int,
) -> Faults:
    """Whether each was answered once, in its session's order, and acknowledged once after that.

    Args:
        notifications: all that there were.
        posts: all that was posted.
        acknowledged: all acknowledgements.
        model_calls: how often the model was asked.
    """
    posts, acknowledged = list(posts), list(acknowledged)
    expected = {each.post for each in notifications}
    found = Counter((user, task_id, content) for _, user, task_id, content in posts)
    told = Counter((user, name) for _, user, name in acknowledged)
    wanted = {(each.user_id, each.notification_id) for each in notifications}
    faults = Faults(
        missing=len(expected - found.keys()),
        wrong=len(found.keys() - expected) + len(told.keys() - wanted),
        doubled=sum(found.values()) - len(found) + sum(told.values()) - len(told),
        unacknowledged=len(wanted - told.keys()),
    )
    stamps = {(user, task_id, content): stamp for stamp, user, task_id, content in posts}
    early = 0
    firsts = {(user, name): stamp for stamp, user, name in reversed(acknowledged)}
    sessions: defaultdict[str, list[float]] = defaultdict(list)
    for each in sorted(notifications, key=lambda each: each.number):
        answered = stamps.get(each.post)
        told_at = firsts.get((each.user_id, each.notification_id))
        if told_at is not None and (answered is None or told_at < answered):
            early += 1
        if answered is not None:
            sessions[each.user_id].append(answered)
    disordered = sum(answers != sorted(answers) for answers in sessions.values())
    for count, what in (
        (early, "acknowledged before they were answered"),
        (disordered, "sessions answered out of order"),
        (max(model_calls - len(notifications), 0), "calls of the model too many"),
    ):
        if count:
            faults.notes.append(f"{count} {what}")
    return faults
