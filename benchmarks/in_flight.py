"""Thousands of turns at once in one worker process, each of which waits two seconds."""

from __future__ import annotations

import base64
import json
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import redis
from figures import in_ms
from plan import Plan
from processes import BenchmarkError, Worker, raise_open_files
from rig import Rig
from turns import make_turns, post_times

MODEL_SECONDS = 2.0
_FILES_PER_TURN = 2  # one connection to the model, one to the backend
_SPARE_FILES = 500


def measure(rig: Rig, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Give one process more turns than it has slots, for each number of slots."""
    points: dict[str, Any] = {}
    for slots, count in plan.in_flight:
        files = raise_open_files()
        if files < slots * _FILES_PER_TURN + _SPARE_FILES:
            raise BenchmarkError(
                f"{slots} turns in flight need {slots * _FILES_PER_TURN + _SPARE_FILES} open"
                f" files, and only {files} are allowed here: raise `ulimit -Hn`"
            )
        points[str(slots)] = _point(rig, slots, count, plan.warm_up)
        point = points[str(slots)]
        say(
            f"{slots:,} in flight: {point['turns_per_second']:,.0f} turns/s,"
            f" {point['resident_mb']['peak']:.0f} MB, above the model's time:"
            f" {point['above_model_ms']} ms"
        )
    return {"model_seconds": MODEL_SECONDS, "points": points}


def _point(rig: Rig, slots: int, count: int, warm_up: int) -> dict[str, Any]:
    rig.behave(latency=MODEL_SECONDS)
    with rig.workers(1, ["-c", str(slots)], warm_up=warm_up) as workers:
        rig.behave(latency=MODEL_SECONDS)
        memory = _Memory(workers[0])
        idle = memory.read()
        with _AcceptTimes(rig.broker.url) as accepted:
            batch = rig.run(workers, make_turns(count), while_waiting=memory.sample)
            posts = post_times(rig.backend.ask("posts"))
        peak = rig.model.ask("counts")["peak"]
    began = {user: accepted.by_id.get(name) for name, user in batch.users.items()}
    if None in began.values():
        rig.faults.notes.append("task-started events of some turns did not come")
    above = [
        posts[user] - start - MODEL_SECONDS
        for user, start in began.items()
        if start is not None and user in posts
    ]
    return {
        "turns": count,
        "turns_per_second": round(batch.per_second, 1),
        "turns_per_second_while_full": round(_middle_rate(posts), 1),
        "cpu_ms_per_turn": round(batch.cpu_ms, 3),
        "waiting_for_the_model_at_once": peak,
        "resident_mb": {"idle": round(idle, 1), **memory.figures()},
        "above_model_ms": in_ms(above, 50, 95, 99, 100),
    }


def _middle_rate(posts: dict[str, float]) -> float:
    """Replies a second between the first fifth and the last: neither filling up nor running dry."""
    stamps = sorted(posts.values())
    part = stamps[len(stamps) // 5 : -(len(stamps) // 5) or None]
    return (len(part) - 1) / (part[-1] - part[0])


class _Memory:
    """Samples of a worker's resident memory."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._samples: list[float] = []

    def read(self) -> float:
        return self._worker.resident_mb()

    def sample(self) -> None:
        self._samples.append(self._worker.resident_mb())

    def figures(self) -> dict[str, float]:
        middle = self._samples[len(self._samples) // 4 : -(len(self._samples) // 4) or None]
        return {
            "peak": round(max(self._samples), 1),
            "plateau": round(statistics.median(middle), 1),
        }


class _AcceptTimes:
    """When the worker began each turn, by its own ``task-started`` events.

    The events are kept as they come and read afterwards, so that listening costs little.

    Attributes:
        by_id: monotonic seconds, by the turn's Celery id; filled when the block ends.
    """

    def __init__(self, url: str) -> None:
        self.by_id: dict[str, float] = {}
        self._raw: list[bytes] = []
        self._offset = time.time() - time.monotonic()
        self._pubsub = redis.Redis.from_url(url, socket_timeout=None).pubsub()
        self._pubsub.psubscribe("/0.celeryev/task.*")
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._pubsub.punsubscribe()
        self._thread.join(10)
        self._pubsub.close()
        for raw in self._raw:
            message = json.loads(raw)
            body = json.loads(base64.b64decode(message["body"]))
            for event in body if isinstance(body, list) else [body]:
                if event["type"] == "task-started":
                    self.by_id[event["uuid"]] = event["timestamp"] - self._offset

    def _listen(self) -> None:
        for message in self._pubsub.listen():
            if message["type"] == "pmessage":
                self._raw.append(message["data"])
            elif message["type"] == "punsubscribe":
                return
