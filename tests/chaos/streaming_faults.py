"""Faults that strike while a model streams its answer, and listeners follow it over two shims."""

from __future__ import annotations

import math
import signal
import socket
import time
from collections.abc import Callable
from functools import partial

from clasper_worker.devkit.local_stack.ports import PortReservations
from tests.chaos.listeners import Listeners
from tests.chaos.points import Hit, Point, wait_for_hit
from tests.chaos.recording_model import STREAMING
from tests.chaos.scene import Scene
from tests.chaos.workers import Process, wait_until

_POINT = Point("in the middle of the model's answer", "model", STREAMING)
_STRIKES = 3  # in each round
_LISTENERS = 3  # of each turn
_READY_SECONDS = 60.0


class Shims:
    """Two shims, each on a port of its own."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._started = 0
        with PortReservations() as ports:
            self.ports = [ports.choose(0, required=False, purpose="a shim") for _ in range(2)]
        self._processes = [self._start(port) for port in self.ports]
        for port, process in zip(self.ports, self._processes, strict=True):
            if not wait_until(partial(_listens, port), _READY_SECONDS):
                raise RuntimeError(f"a shim did not come up:\n{process.last_lines()}")

    def kill(self, number: int) -> tuple[float, str]:
        """``kill -9`` one; when, and its name."""
        process = self._processes[number]
        at = process.send(signal.SIGKILL)
        process.wait()
        return at, process.name

    def restart(self, number: int) -> None:
        """Start one again on its port."""
        self._processes[number] = self._start(self.ports[number])

    def note_crashes(self) -> None:
        """Tell the scene of those that have ended although nobody had told them to."""
        for process in self._processes:
            if not process.running and not process.told_to_end:
                self._scene.crashed.append(f"{process.name} ended by itself: {process.exit_code}")

    def _start(self, port: int) -> Process:
        self._started += 1
        arguments = ["serve", "--port", str(port)]
        return self._scene.start(f"shim{self._started}", arguments, module="clasper_worker")


Strike = Callable[[Scene, Shims, Hit], None]


def listen_through(scene: Scene, strike: Strike) -> None:
    """Have listeners follow turns while a fault strikes again and again in mid-stream."""
    for _ in range(2):
        scene.start_worker(wait=True)
    shims = Shims(scene)
    listeners = Listeners(shims.ports, scene.random.randrange(10**6))
    strikes = _STRIKES * scene.options.rounds
    try:
        for _ in range(strikes):
            turns = math.ceil(scene.options.turns / strikes)
            for turn in scene.send_batch(turns, sessions=math.ceil(turns / 2), stream=True):
                for _ in range(_LISTENERS):
                    listeners.follow(turn.token, turn.celery_ids[0])
            scene.model.arm(_POINT.at)
            try:
                hit = wait_for_hit(scene, _POINT)
                if hit is not None:
                    strike(scene, shims, hit)
            finally:
                scene.model.release()
        wait_until(lambda: _are_done(scene, listeners), scene.options.patience, pause=0.2)
    finally:
        scene.heard += listeners.close()
    shims.note_crashes()
    connections = sum(each.connections for each in scene.heard)
    scene.notes.append(f"{len(scene.heard)} listeners took {connections} connections")


def kill_worker(scene: Scene, shims: Shims, hit: Hit) -> None:
    """``kill -9`` the worker that is told the answer."""
    del shims
    killed = scene.worker(hit.worker)
    at = killed.send(signal.SIGKILL)
    killed.wait()
    scene.disturb("kill -9", at, math.inf, workers=(killed.name,), **hit.about())
    scene.start_worker()


def kill_shim(scene: Scene, shims: Shims, hit: Hit) -> None:
    """``kill -9`` one of the shims; it comes back on its port."""
    number = scene.random.randrange(2)
    at, name = shims.kill(number)
    scene.model.release()
    time.sleep(scene.random.uniform(0.0, 1.0))
    shims.restart(number)
    scene.disturb(f"kill -9 {name}", at, time.monotonic(), **hit.about())


def kill_redis(scene: Scene, shims: Shims, hit: Hit) -> None:
    """Kill Redis; the model goes on, and Redis comes back with its append-only file."""
    del shims
    at = time.monotonic()
    scene.redis.kill()
    scene.model.release()
    time.sleep(scene.random.uniform(0.0, 2.0))
    scene.redis.restart()
    scene.disturb("Redis killed", at, time.monotonic(), state=True, **hit.about())


def cut_model(scene: Scene, shims: Shims, hit: Hit) -> None:
    """Have the model close in the middle of half of its answers, for a while."""
    del shims
    at = time.monotonic()
    scene.model.behave("half", share=0.5)
    scene.model.release()
    time.sleep(scene.options.outage_seconds / _STRIKES)
    scene.notes.append(f"{scene.model.behave()} answers cut by then")
    scene.disturb("model: half", at, time.monotonic(), **hit.about())


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _are_done(scene: Scene, listeners: Listeners) -> bool:
    scene.look_after_workers()
    return listeners.are_done
