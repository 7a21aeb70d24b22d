"""Notifications: given to the backend, answered by turns, acknowledged."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.chaos.beats import start_beat
from tests.chaos.callers import request_for
from tests.chaos.floods import kill_one
from tests.chaos.recording_jobs import DELIVER, INTERNAL_HEADER
from tests.chaos.records import SentTurn
from tests.chaos.scene import Scene
from tests.chaos.script import token_of

_WORKERS = 3
_FAIL = 0.5
_FAIL_STORED = 0.3  # of those
_TOOLS = 0.1


def acknowledge(scene: Scene) -> None:
    """Have notifications answered while workers are killed and acknowledgements fail."""
    options = scene.options
    notify(scene, own_sessions(scene, options.notified_users), options.notified)
    scene.backend.behave("error", only=DELIVER, share=_FAIL, stored=_FAIL_STORED)
    for _ in range(_WORKERS):
        scene.start_worker(wait=True)
    start_beat(scene, "b1")
    while scene.pending() > 0.03 * options.notified and not scene.stuck():
        began = time.monotonic()
        pause = scene.random.uniform(options.kill_every / 2, options.kill_every)
        while time.monotonic() < began + pause and scene.pending():
            time.sleep(0.2)
        scene.look_after_workers()
        kill_one(scene)
    struck = scene.backend.counts()["struck"]
    scene.notes.append(f"{len(scene.disturbances)} kills; {struck} acknowledgements failed by then")


def own_sessions(scene: Scene, users: int) -> list[str]:
    """New sessions of so many users: of the two that each may have, one."""
    return [scene.new_session() for _ in range(2 * users)][::2]


def notify(scene: Scene, sessions: Sequence[str], count: int, *, first: int = 0) -> None:
    """Give the backend notifications, one of each session in turn.

    Args:
        scene: where.
        sessions: that have no turns but notifications.
        count: how many in all.
        first: how many of these sessions' notifications it was given before.
    """
    for index in range(first, first + count):
        token = token_of(sessions[index % len(sessions)], index // len(sessions))
        tool = scene.random.random() < _TOOLS
        request = request_for(token, tool=tool)
        given = {**request, "content": request.pop("message")}
        at = time.monotonic()
        path = "/w/people/api/mission-control/notifications"
        scene.backend.post(path, given, {INTERNAL_HEADER: "people"})
        scene.callers.sent.append(SentTurn(token, request["user_id"], (), tool, at, notified=True))
