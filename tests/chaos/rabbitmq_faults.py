"""RabbitMQ as the broker: a worker killed, connections closed, the server restarted."""

from __future__ import annotations

import math
import signal
import time

from tests.chaos.scene import Scene
from tests.chaos.workers import wait_until

_BEGUN_SECONDS = 60.0


def disturb_rabbitmq(scene: Scene) -> None:
    """Strike each way while turns run; each of a session of its own, since none has an order."""
    for _ in range(2):
        scene.start_worker(wait=True)
    server = scene.rabbitmq
    assert server is not None
    for _ in range(scene.options.rounds):
        for fault in (_kill, _close_connections, _restart):
            ended = scene.callers.ended()
            turns = scene.options.turns
            scene.send_batch(turns, sessions=turns)
            wait_until(lambda ended=ended: scene.callers.ended() > ended, _BEGUN_SECONDS)  # type: ignore[misc]
            fault(scene)


def _kill(scene: Scene) -> None:
    killed = scene.random.choice(scene.workers)
    at = killed.send(signal.SIGKILL)
    killed.wait()
    scene.disturb("kill -9", at, math.inf, workers=(killed.name,))
    scene.start_worker(wait=True)


def _close_connections(scene: Scene) -> None:
    assert scene.rabbitmq is not None
    at = time.monotonic()
    scene.rabbitmq.close_connections()
    scene.disturb("connections closed", at, time.monotonic())


def _restart(scene: Scene) -> None:
    assert scene.rabbitmq is not None
    at = time.monotonic()
    scene.rabbitmq.restart()
    scene.disturb("RabbitMQ restarted", at, time.monotonic())
