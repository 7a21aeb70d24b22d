"""Faults that strike worker processes, at points of turns."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.points import POINTS, Hit, Point, send_for, server_of, wait_for_hit
from tests.chaos.scene import Scene
from tests.chaos.workers import wait_until

_LATEST_SECONDS = 0.004  # after an answer went out: the result and the acknowledgement are then
_EXIT_SECONDS = 60.0
_FROZEN_LEASES = 1.6
_CHILDREN = 4


def at_points(scene: Scene, strike: Callable[[Scene, Hit], None], points: int = 0) -> None:
    """Strike while a turn is held at a point, for each round and point; then let it go."""
    for point in each_point(scene, points):
        server = server_of(scene, point)
        send_for(scene, point, math.ceil(scene.options.turns / scene.options.rounds))
        server.arm(point.at, hold=point.held)
        try:
            hit = wait_for_hit(scene, point)
            if hit is not None:
                strike(scene, hit)
        finally:
            server.release()


def each_point(scene: Scene, points: int = 0) -> list[Point]:
    """The points of a row, as often as the options want them."""
    chosen = POINTS[: points or scene.options.points or len(POINTS)]
    return [point for _ in range(scene.options.rounds) for point in chosen]


def kill_at_points(scene: Scene, workers: int) -> None:
    """``kill -9`` the worker whose turn is at a point, and start another."""
    for _ in range(workers):
        scene.start_worker(wait=True)
    for point in each_point(scene):
        server = server_of(scene, point)
        send_for(scene, point, math.ceil(scene.options.turns / scene.options.rounds))
        if point.held:
            server.arm(point.at)
        else:
            # Too short for a message to the harness: the server itself kills.
            pids = {worker.name: worker.pid for worker in scene.workers}
            delay = scene.random.uniform(0.0, _LATEST_SECONDS)
            server.arm(point.at, pids=pids, signal=signal.SIGKILL, delay=delay, hold=False)
        try:
            hit = wait_for_hit(scene, point)
            if hit is not None:
                _kill(scene, hit)
        finally:
            server.release()


def _kill(scene: Scene, hit: Hit) -> None:
    killed = scene.worker(hit.worker)
    at = killed.send(signal.SIGKILL)
    killed.wait()
    scene.disturb("kill -9", at, math.inf, workers=(killed.name,), **hit.about())
    scene.start_worker()


def kill_children_at_points(scene: Scene) -> None:
    """Kill the child of a prefork worker whose turn is at a point; the worker itself goes on.

    Its children are replaced after a few turns as well, so that most of them were forked while the
    worker held leases.
    """
    scene.worker_options = ("-P", "prefork", "--max-tasks-per-child", "3")
    scene.start_worker(wait=True, concurrency=_CHILDREN)

    def strike(scene: Scene, hit: Hit) -> None:
        worker = scene.worker(hit.worker)
        children = _children(worker.pid)
        running = scene.callers.process_of(hit.token) if hit.token else None
        child = running if running in children else scene.random.choice(children)
        number = scene.random.choice((signal.SIGKILL, signal.SIGTERM))
        at = time.monotonic()
        os.kill(child, number)
        wait_until(lambda: child not in _children(worker.pid), _EXIT_SECONDS)
        what = f"{number.name} to a child"
        scene.disturb(what, at, time.monotonic(), workers=(worker.name,), **hit.about())

    at_points(scene, strike)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def stop_at_points(scene: Scene, number: signal.Signals) -> None:
    """Tell the worker whose turn is at a point to stop, while another starts."""
    scene.start_worker(wait=True)

    def strike(scene: Scene, hit: Hit) -> None:
        stopped = scene.worker(hit.worker)
        at = stopped.send(number)
        scene.start_worker()
        time.sleep(0.5)  # the signal strikes while the call is open
        server_of(scene, hit.point).release()
        if not stopped.wait(_EXIT_SECONDS):
            scene.notes.append(
                f"{stopped.name} had not stopped {_EXIT_SECONDS:g} s after {number.name}"
            )
            stopped.send(signal.SIGKILL)
        scene.disturb(number.name, at, time.monotonic(), workers=(stopped.name,), **hit.about())

    at_points(scene, strike)


def freeze_at_points(scene: Scene) -> None:
    """SIGSTOP the worker whose turn is at a point; SIGCONT when its lease has long run out.

    What the server answers meanwhile waits in the frozen worker's sockets.
    """
    scene.start_worker(wait=True)
    thaws: list[tuple[float, str, float, Hit]] = []

    def strike(scene: Scene, hit: Hit) -> None:
        frozen = scene.worker(hit.worker)
        at = frozen.send(signal.SIGSTOP)
        thaws.append((at + _FROZEN_LEASES * scene.options.visibility_seconds, frozen.name, at, hit))
        scene.start_worker()
        _thaw(scene, thaws, due=time.monotonic())

    at_points(scene, strike)
    while thaws:
        wait_until(lambda: time.monotonic() >= thaws[0][0], math.inf)
        _thaw(scene, thaws, due=time.monotonic())


def _thaw(scene: Scene, thaws: list[tuple[float, str, float, Hit]], due: float) -> None:
    """Let those go on whose time has come."""
    while thaws and thaws[0][0] <= due:
        _, name, at, hit = thaws.pop(0)
        until = scene.worker(name).send(signal.SIGCONT)
        what = "SIGSTOP, then SIGCONT"
        scene.disturb(what, at, until, workers=(name,), **hit.about())
