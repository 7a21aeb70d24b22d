"""Outages of the model and the backend, while turns come in."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Literal

from tests.chaos import recording_backend, recording_model
from tests.chaos.points import Point, server_of, wait_for_hit
from tests.chaos.scene import Scene

_BEFORE_POST = Point("during the model call", "model", recording_model.RECEIVED)
_BEFORE_MODEL = Point("before the model call", "backend", recording_backend.HISTORY)
_IN_TOOL = Point(
    "in a tool, before its post", "backend", recording_backend.DOCUMENT_RECEIVED, tool=True
)
_STARTS: dict[str, tuple[Point, ...]] = {
    "backend": (_BEFORE_POST, _IN_TOOL),
    "model": (_BEFORE_MODEL, _IN_TOOL),
}
_LONG = 4  # outages as long as the others


@dataclass(frozen=True, slots=True)
class Outage:
    """How a server behaves badly.

    Attributes:
        server: which.
        kind: see `recording_server.Fault`.
        share: of the calls.
        seconds: see `recording_server.Fault`.
    """

    server: Literal["model", "backend"]
    kind: str
    share: float = 1.0
    seconds: float = 0.0


def suffer(scene: Scene, outage: Outage) -> None:
    """Go through an outage that begins while turns are at a point; others come in during it."""
    for _ in range(2):
        scene.start_worker(wait=True)
    starts = _STARTS[outage.server][: scene.options.rounds]
    for point in starts:
        first = max(4, scene.options.turns // (2 * len(starts)))
        scene.send_batch(first, tools=0.6)
        held_by = server_of(scene, point)
        held_by.arm(point.at)
        hit = wait_for_hit(scene, point)
        server = scene.model if outage.server == "model" else scene.backend
        at = time.monotonic()
        server.behave(outage.kind, share=outage.share, seconds=outage.seconds)
        held_by.release()
        _keep_sending(scene, scene.options.turns // len(starts) - first)
        time.sleep(max(0.0, at + scene.options.outage_seconds - time.monotonic()))
        scene.notes.append(f"{server.behave()} calls struck by then")
        about = hit.about() if hit else {}
        what = f"{outage.server}: {outage.kind}"
        scene.disturb(what, at, time.monotonic(), **about)


def queue_up(scene: Scene) -> None:
    """Have many turns wait while the model fails for long: they may neither fail nor hammer it."""
    for _ in range(2):
        scene.start_worker(wait=True)
    seconds = _LONG * scene.options.outage_seconds
    at = time.monotonic()
    scene.model.behave("error")
    scene.send_batch(scene.options.waiting, tools=0.0)
    time.sleep(max(0.0, at + seconds - time.monotonic()))
    struck = scene.model.behave()
    scene.disturb("model: error", at, time.monotonic())
    scene.notes.append(f"{struck} calls made in {seconds:g} s in which all of them failed")


def _keep_sending(scene: Scene, turns: int) -> None:
    """Send turns evenly over the outage's first two thirds, two of each session."""
    pairs = math.ceil(turns / 2)
    for _ in range(pairs):
        scene.send_batch(2, sessions=1)
        time.sleep(scene.options.outage_seconds * 2 / 3 / pairs)
