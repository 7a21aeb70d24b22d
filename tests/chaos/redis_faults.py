"""Faults that strike Redis, at points of turns."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

from tests.chaos.points import Hit, server_of
from tests.chaos.scene import Scene
from tests.chaos.worker_faults import at_points

_PAUSES = 3


def kill_redis(scene: Scene) -> None:
    """Kill Redis while a turn is at a point; it comes back with its append-only file."""
    _two_workers(scene)

    def strike(scene: Scene, hit: Hit) -> None:
        early = scene.random.random() < 0.5
        at = time.monotonic()
        scene.redis.kill()
        if early:  # the turn goes on while Redis is away
            server_of(scene, hit.point).release()
        time.sleep(scene.random.uniform(0.0, 2.0))
        scene.redis.restart()
        scene.disturb("Redis killed", at, time.monotonic(), state=True, **hit.about())

    at_points(scene, strike)


def flush_state(scene: Scene) -> None:
    """Delete leases, journals and results while a turn is at a point."""
    _two_workers(scene)
    deleted: Counter[str] = Counter()

    def strike(scene: Scene, hit: Hit) -> None:
        at = time.monotonic()
        deleted.update(scene.callers.delete(scene.options.flushed))
        until = time.monotonic()
        scene.disturb("state flushed", at, until, state=True, erases=True, **hit.about())

    at_points(scene, strike)
    told = ", ".join(f"{pattern} {count}" for pattern, count in deleted.items())
    scene.notes.append(f"keys deleted: {told}")


def pause_redis(scene: Scene) -> None:
    """Have Redis stand still, by its own CLIENT PAUSE and by SIGSTOP in turn."""
    _two_workers(scene)
    stopped = False

    def strike(scene: Scene, hit: Hit) -> None:
        nonlocal stopped
        seconds = scene.options.outage_seconds
        at = time.monotonic()
        if stopped:
            os.kill(scene.redis.pid, signal.SIGSTOP)
        else:
            scene.callers.client.client_pause(int(seconds * 1000))
        server_of(scene, hit.point).release()
        time.sleep(seconds)
        if stopped:
            os.kill(scene.redis.pid, signal.SIGCONT)
        what = "Redis stopped (SIGSTOP)" if stopped else "Redis paused (CLIENT PAUSE)"
        stopped = not stopped
        scene.disturb(what, at, time.monotonic(), state=True, **hit.about())

    at_points(scene, strike, points=_PAUSES)


def _two_workers(scene: Scene) -> None:
    for _ in range(2):
        scene.start_worker(wait=True)
