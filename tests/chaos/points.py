"""The points of a turn at which faults strike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tests.chaos import recording_backend, recording_model
from tests.chaos.scene import Scene
from tests.chaos.server_process import ServerProcess, TrapNotSprungError

_SPRING_SECONDS = 25.0
_TRIES = 4


@dataclass(frozen=True, slots=True)
class Point:
    """A place in a turn.

    Attributes:
        name: for people.
        server: which of the two sees it.
        at: the server's name for it.
        held: whether the call waits there while the fault strikes; else the moment passes, and
            the fault strikes as soon after it as can be.
        tool: whether only turns with a tool come by.
    """

    name: str
    server: Literal["model", "backend"]
    at: str
    held: bool = True
    tool: bool = False


POINTS = (
    Point("during the model call", "model", recording_model.RECEIVED),
    Point("after the post, before the ack", "backend", recording_backend.MESSAGE_STORED),
    Point("after the model, before the post", "backend", recording_backend.MESSAGE_RECEIVED),
    Point("in a tool, after its post", "backend", recording_backend.DOCUMENT_STORED, tool=True),
    Point("before the model call", "backend", recording_backend.HISTORY),
    Point("in a tool, before its post", "backend", recording_backend.DOCUMENT_RECEIVED, tool=True),
    Point("as the model's answer arrives", "model", recording_model.ANSWERED, held=False),
    Point(
        "as the post's answer arrives", "backend", recording_backend.MESSAGE_ANSWERED, held=False
    ),
)


@dataclass(frozen=True, slots=True)
class Hit:
    """A turn that is at a point now.

    Attributes:
        point: which.
        worker: that runs it.
        token: of it; None where the server cannot tell (a history read names a task).
    """

    point: Point
    worker: str
    token: str | None

    def about(self) -> dict[str, Any]:
        """For a `Disturbance`."""
        return {"token": self.token, "point": self.point.name}


def server_of(scene: Scene, point: Point) -> ServerProcess:
    """The server that sees a point."""
    return scene.model if point.server == "model" else scene.backend


def send_for(scene: Scene, point: Point, turns: int) -> None:
    """Send turns, enough of which come by the point."""
    scene.send_batch(turns, tools=0.6 if point.tool else 0.25)


def wait_for_hit(scene: Scene, point: Point) -> Hit | None:
    """The next turn at an armed point; more turns are sent where none comes by. None: in vain."""
    for number in range(_TRIES):
        try:
            found = server_of(scene, point).sprung(_SPRING_SECONDS)
        except TrapNotSprungError:
            scene.look_after_workers()
            if number + 1 < _TRIES:
                send_for(scene, point, 4)
        else:
            token = found["token"]
            return Hit(point, found["worker"], None if token.startswith("task:") else token)
    scene.notes.append(f"no turn came to the point {point.name!r}")
    return None
