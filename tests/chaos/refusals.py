"""A Redis that answers, and refuses: as a replica, as it is full, as a script keeps it busy.

And one that does not answer at all on connections that stay open.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from urllib.parse import urlsplit

import redis

from tests.chaos.points import Hit, server_of
from tests.chaos.route import Route
from tests.chaos.scene import Scene
from tests.chaos.worker_faults import at_points

_BLINKS = 10
_BLINK_SECONDS = 1.5
_BETWEEN_SECONDS = 0.7
_FULL_BYTES = 1
_BUSY_SCRIPT = """
local till = tonumber(ARGV[1]) * 1000000
local now = redis.call('TIME')
local began = now[1] * 1000000 + now[2]
repeat
  now = redis.call('TIME')
until now[1] * 1000000 + now[2] - began >= till
return 1
"""

Refusing = Callable[[Scene, float], AbstractContextManager[None]]


def blink(scene: Scene, what: str, refusing: Refusing) -> None:
    """Have Redis refuse for a moment, again and again, while turns come and go."""
    for _ in range(2):
        scene.start_worker(wait=True)
    for _ in range(_BLINKS):
        scene.send_batch(scene.options.turns, tools=0.5)
        at = time.monotonic()
        with refusing(scene, _BLINK_SECONDS):
            time.sleep(_BLINK_SECONDS)
        scene.disturb(what, at, time.monotonic(), state=True)
        time.sleep(_BETWEEN_SECONDS)


def strike(scene: Scene, what: str, refusing: Refusing) -> None:
    """Have Redis refuse while a turn is at a point, which then goes on; and for a moment more."""
    for _ in range(2):
        scene.start_worker(wait=True)
    seconds = scene.options.outage_seconds

    def begin(scene: Scene, hit: Hit) -> None:
        at = time.monotonic()
        with refusing(scene, seconds):
            server_of(scene, hit.point).release()
            time.sleep(seconds)
        scene.disturb(what, at, time.monotonic(), state=True, **hit.about())

    at_points(scene, begin)


@contextmanager
def read_only(scene: Scene, seconds: float) -> Iterator[None]:
    """Make it the replica of another, empty Redis that it never hears from."""
    del seconds
    scene.callers.client.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        scene.callers.client.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]


@contextmanager
def full(scene: Scene, seconds: float) -> Iterator[None]:
    """Leave it no memory for writes."""
    del seconds
    scene.callers.client.config_set("maxmemory", _FULL_BYTES)
    try:
        yield
    finally:
        scene.callers.client.config_set("maxmemory", 0)


@contextmanager
def busy(scene: Scene, seconds: float) -> Iterator[None]:
    """Run a script for so long; others are told so after 50 ms."""
    scene.callers.client.config_set("lua-time-limit", 50)
    client = redis.Redis.from_url(scene.redis.url, socket_timeout=None)

    def run() -> None:
        with client:
            client.eval(_BUSY_SCRIPT, 0, str(seconds))

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.1)
    try:
        yield
    finally:
        thread.join()


def half_open(scene: Scene) -> None:
    """Lose the connections of our own state, which nobody closes, while turns are at points."""
    server = urlsplit(scene.redis.url)
    route = Route(server.hostname or "127.0.0.1", server.port or 6379)
    try:
        scene.settings["CLASPER_REDIS_URL"] = f"redis://127.0.0.1:{route.port}/0"
        for _ in range(2):
            scene.start_worker(wait=True)

        def lose(scene: Scene, hit: Hit) -> None:
            at = time.monotonic()
            route.lose()
            server_of(scene, hit.point).release()
            scene.disturb("half-open", at, at, state=True, **hit.about())

        at_points(scene, lose)
        scene.settle()
    finally:
        route.close()
