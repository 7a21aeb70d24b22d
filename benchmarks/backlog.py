"""Filling the workers' queue out of their sight, and giving it to them at one moment.

The messages are copies of one that Celery's own ``send_task`` wrote, each with ids and a body of
its own. They are collected in Redis' database 1, as Celery would put them into database 0, and
moved there at once by ``MOVE``: so a measure of how turns are carried out does not include how
they are sent, which has a measure of its own.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import redis
from celery import Celery
from processes import BenchmarkError
from turns import Faults, Turn, reply_to

QUEUE = "clasper"
_CHUNK = 500


class Backlog:
    """The queue of turns, seen from outside.

    Args:
        url: the broker's, database 0.
    """

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url)
        self._shadow_url = f"{url.rpartition('/')[0]}/1"
        self._shadow = redis.Redis.from_url(self._shadow_url)
        self._template: dict[str, Any] | None = None

    def fill(
        self, turns: Iterable[Turn], history: Sequence[Mapping[str, str]] = ()
    ) -> dict[str, Turn]:
        """Put turns in order behind the scenes; returns them by their Celery ids."""
        ids: dict[str, Turn] = {}
        pipeline = self._shadow.pipeline(transaction=False)
        for turn in turns:
            task_id = str(uuid.uuid4())
            ids[task_id] = turn
            pipeline.lpush(QUEUE, self._message(task_id, turn.request(history)))
            if len(ids) % _CHUNK == 0:
                pipeline.execute()
        pipeline.execute()
        return ids

    def release(self) -> None:
        """Give the workers what was filled in."""
        if not self._shadow.move(QUEUE, 0):
            raise BenchmarkError("the workers' queue was not empty")

    def length(self) -> int:
        """How many messages wait: in the queue, or in their sessions' lanes."""
        return int(self._redis.llen(QUEUE)) + int(self._redis.hlen("clasper:jobs"))

    def take_back(self) -> list[str]:
        """Take away what waits; returns the Celery ids."""
        if not self._redis.exists(QUEUE):
            return []
        name = f"bench.taken-back.{uuid.uuid4().hex}"
        self._redis.rename(QUEUE, name)
        messages = cast("list[bytes]", self._redis.lrange(name, 0, -1))
        self._redis.delete(name)
        return [json.loads(message)["headers"]["id"] for message in messages]

    def waiting(self, queue: str) -> list[tuple[str, dict[str, Any]]]:
        """The tasks that wait in a queue, with their arguments, in no order."""
        found = []
        for raw in cast("list[bytes]", self._redis.lrange(queue, 0, -1)):
            message = json.loads(raw)
            _, arguments, _ = json.loads(base64.b64decode(message["body"]))
            found.append((message["headers"]["task"], arguments))
        return found

    def note(self, key: str) -> float | None:
        """The number that the product keeps under a key of Redis, if it does."""
        text = cast("bytes | None", self._redis.get(key))
        return None if text is None else float(text)

    def check_results(self, ids: Mapping[str, Turn]) -> Faults:
        """Whether Celery stored every turn as succeeded, with its own reply."""
        faults = Faults()
        names = list(ids)
        for start in range(0, len(names), _CHUNK):
            chunk = names[start : start + _CHUNK]
            stored = self._redis.mget([f"celery-task-meta-{name}" for name in chunk])
            for name, value in zip(chunk, stored, strict=True):
                meta = json.loads(value) if value else {"status": "PENDING"}
                if meta["status"] != "SUCCESS":
                    faults.failed += 1
                    faults.notes.append(f"a turn is {meta['status']}: {meta.get('result')}")
                elif meta["result"]["response"] != reply_to(ids[name].token):
                    faults.wrong += 1
        return faults

    def forget(self, ids: Iterable[str]) -> None:
        """Drop the results of these turns."""
        keys = [f"celery-task-meta-{name}" for name in ids]
        for start in range(0, len(keys), _CHUNK):
            self._redis.delete(*keys[start : start + _CHUNK])

    def clear(self) -> None:
        """Drop everything in Redis; only while no worker runs."""
        self._redis.flushall()
        self._template = None

    def _message(self, task_id: str, request: Mapping[str, Any]) -> bytes:
        template = self._template or self._make_template()
        body = json.dumps([[], request, _EMBED]).encode()
        template["body"] = base64.b64encode(body).decode()
        template["headers"].update(id=task_id, root_id=task_id)
        template["properties"].update(correlation_id=task_id, delivery_tag=str(uuid.uuid4()))
        return json.dumps(template).encode()

    def _make_template(self) -> dict[str, Any]:
        with Celery("bench", broker=self._shadow_url, set_as_current=False) as app:
            app.send_task("clasper.send", kwargs=Turn(0, "[[turn:x]]").request(), queue=QUEUE)
        template: dict[str, Any] = json.loads(cast("bytes", self._shadow.rpop(QUEUE)))
        self._template = template
        return template


_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
