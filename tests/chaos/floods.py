"""Rows without points: duplicates, kills at random microseconds, many turns, long turns."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.chaos import recording_backend
from tests.chaos.callers import QUEUE, request_for
from tests.chaos.records import SentTurn
from tests.chaos.scene import Scene
from tests.chaos.script import token_of
from tests.chaos.server_process import TrapNotSprungError
from tests.chaos.workers import Process

_SENDERS = 8
_START_SECONDS = 60.0
_BURST = 10
_BEFORE_KILL_SECONDS = 0.08
_MOST_DELIVERIES = "100"


def same_key(scene: Scene) -> None:
    """Enqueue each turn many times at once under one idempotency key."""
    for _ in range(2):
        scene.start_worker(wait=True)
    with ThreadPoolExecutor(_SENDERS) as senders:
        for number in range(scene.options.turns):
            token = token_of(scene.new_session(), 0)
            request = {**request_for(token, tool=number % 4 == 0), "idempotency_key": token}
            at = time.monotonic()

            def send(_: int, request: dict[str, Any] = request) -> str:
                return scene.callers.enqueue(request)

            ids = tuple(senders.map(send, range(scene.options.copies)))
            user = str(request["user_id"])
            scene.callers.sent.append(SentTurn(token, user, ids, number % 4 == 0, at))


def same_id(scene: Scene) -> None:
    """Enqueue each turn twice under one Celery id: at once, and again when it has ended."""
    for _ in range(2):
        scene.start_worker(wait=True)
    again = []
    for number in range(scene.options.turns):
        token = token_of(scene.new_session(), 0)
        request = request_for(token, tool=number % 4 == 0)
        name = f"same-{number}"
        at = time.monotonic()
        for _ in range(2):
            scene.callers.enqueue(request, name)
        scene.callers.sent.append(SentTurn(token, request["user_id"], (name,), number % 4 == 0, at))
        again.append((name, request))
    deadline = time.monotonic() + _START_SECONDS
    while scene.callers.ended() < len(again) and time.monotonic() < deadline:
        time.sleep(0.1)
    for name, request in again[::2]:
        scene.callers.enqueue(request, name)


def random_kills(scene: Scene) -> None:
    """``kill -9`` at random microseconds, while messages stream into the queue.

    The next worker boots beside the one that is to be killed, and is known to take messages
    before that one's time comes. No worker lives for longer than a turn or two: any of them may
    lose five workers through no fault of its own, and none is to be given up for it.
    """
    scene.settings["CLASPER_MAX_DELIVERIES"] = _MOST_DELIVERIES
    scene.notes.append(f"with CLASPER_MAX_DELIVERIES={_MOST_DELIVERIES}")
    current = _start_at_work(scene)
    full = 0
    for _ in range(scene.options.kills):
        following = scene.start_worker()
        delay = scene.random.uniform(0.0, _BEFORE_KILL_SECONDS)
        killed_at: list[float] = []
        timer = threading.Timer(delay, _kill, (current, killed_at))
        timer.start()
        sent = 0
        while not killed_at or sent < _BURST:
            scene.send_batch(2, sessions=1, tools=0.1)
            sent += 2
        timer.join()
        full += bool(scene.callers.client.llen(QUEUE))
        scene.disturb("kill -9", killed_at[0], math.inf, workers=(current.name,))
        current.wait()
        current = _at_work(scene, following)
    scene.notes.append(
        f"{scene.options.kills} kills, all while messages were sent;"
        f" after {full} of them the queue was not empty"
    )


def many_turns(scene: Scene) -> None:
    """Turns by the thousand through three workers, of which one is killed every few seconds."""
    options = scene.options
    for _ in range(3):
        scene.start_worker(wait=True)
    total = options.many
    sender = threading.Thread(
        target=scene.send_batch, args=(total,), kwargs={"sessions": max(5, total // 50)}
    )
    sender.start()
    while sender.is_alive() or scene.callers.ended() < total * 0.97:
        began = time.monotonic()
        pause = scene.random.uniform(options.kill_every / 2, options.kill_every)
        while time.monotonic() < began + pause and scene.callers.ended() < total:
            time.sleep(0.5)
        scene.look_after_workers()
        kill_one(scene)
        if scene.stuck():
            break
    sender.join()
    scene.notes.append(f"{len(scene.disturbances)} kills")


def long_turns(scene: Scene) -> None:
    """Turns of several leases' time on living workers, while a neighbour is killed."""
    for _ in range(3):
        scene.start_worker(wait=True)
    scene.send_batch(scene.options.turns, sessions=scene.options.turns, slow=True, tools=0.0)
    for _ in range(2):
        time.sleep(scene.options.visibility_seconds)
        kill_one(scene)


def kill_one(scene: Scene) -> None:
    """Kill a random worker, and start another."""
    victim = scene.random.choice(scene.workers)
    killed_at: list[float] = []
    _kill(victim, killed_at)
    scene.disturb("kill -9", killed_at[0], math.inf, workers=(victim.name,))
    scene.start_worker()


def _kill(worker: Process, killed_at: list[float]) -> None:
    worker.told_to_end = True
    moment = time.monotonic()
    os.kill(worker.pid, signal.SIGKILL)
    killed_at.append(moment)


def _start_at_work(scene: Scene) -> Process:
    return _at_work(scene, scene.start_worker())


def _at_work(scene: Scene, worker: Process) -> Process:
    """Return when the worker has begun a turn; one that does not is replaced."""
    for _ in range(3):
        scene.backend.arm(recording_backend.HISTORY, worker=worker.name, hold=False)
        scene.send_batch(2)
        try:
            scene.backend.sprung(_START_SECONDS)
        except TrapNotSprungError:
            scene.notes.append(f"{worker.name} took no turn within {_START_SECONDS:g} s")
            scene.look_after_workers()
            worker = scene.start_worker()
        else:
            return worker
    raise RuntimeError(f"no worker takes turns:\n{worker.last_lines()}")
