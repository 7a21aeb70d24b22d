"""Messages as stock Celery producers encode them, and a scheduler to put them through."""

from __future__ import annotations

import base64
import itertools
import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import redis

from clasper_worker.engine.queue.policy import ScheduleRules
from clasper_worker.engine.queue.scheduler import Schedule
from clasper_worker.engine.queue.scheduler_types import Delivery, Exchanged

QUEUES = ("clasper", "clasper.dispatch", "clasper.periodic", "clasper.webhooks")
_numbers = itertools.count()


def message(
    task: str = "clasper.send",
    *,
    job: str | None = None,
    tag: str | None = None,
    headers: dict[str, Any] | None = None,
    body: str | None = None,
    **kwargs: Any,
) -> bytes:
    """A task message in kombu's form, its body in Base64."""
    if body is None:
        body = json.dumps([[], kwargs, {"callbacks": None, "errbacks": None}])
    return json.dumps(
        {
            "body": base64.b64encode(body.encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": task,
                "id": job or f"job-{next(_numbers)}",
                **(headers or {}),
            },
            "properties": {
                "correlation_id": job,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": "clasper"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": tag or str(uuid.uuid4()),
            },
        }
    ).encode()


def job_of(delivery: Delivery) -> str:
    return str(json.loads(delivery.raw)["headers"]["id"])


def jobs_of(deliveries: Sequence[Delivery]) -> list[str]:
    return [job_of(delivery) for delivery in deliveries]


class Broker:
    """A Redis, what producers do to it, and what workers do."""

    def __init__(self, client: redis.Redis, *, queues: Sequence[str] = QUEUES) -> None:
        self.client = client
        self.rules = ScheduleRules()
        self.queues = queues

    def send(
        self, job: str, user: str = "u", role: str = "r", *, queue: str = "clasper", **kwargs: Any
    ) -> None:
        """A turn of the session of this user and role."""
        kwargs = {"user_id": user, "agent_role": role, "message": "Hello", **kwargs}
        self.push(message(job=job, **kwargs), queue)

    def push(self, raw: bytes, queue: str = "clasper", priority: int = 0) -> None:
        self.client.lpush(f"{queue}\x06\x16{priority}" if priority else queue, raw)

    def schedule(self, *, queues: Sequence[str] | None = None, **rules: Any) -> Schedule:
        """A worker's side; rules as given here are those of this worker alone."""
        lists = [
            (queue, [queue, *(f"{queue}\x06\x16{step}" for step in (3, 6, 9))])
            for queue in queues or self.queues
        ]
        return Schedule(self.client, replace(self.rules, **rules), lists)

    def take(self, free: int = 1000, **more: Any) -> Exchanged:
        return self.schedule().exchange(free=free, **more)

    def jobs(self, free: int = 1000, **more: Any) -> list[str]:
        """Take, and name the jobs of what came."""
        return jobs_of(self.take(free, **more).deliveries)

    def verdicts(self, **more: Any) -> dict[str, str]:
        """Take and settle what may run; by job why it must not."""
        found = self.take(**more).deliveries
        self.take(0, settled=[one.token for one in found])
        return {job_of(one): one.verdict for one in found}

    def take_one(self) -> Delivery:
        (delivery,) = self.take(1).deliveries
        return delivery

    def drain(self) -> list[str]:
        """Run what there is, one at a time; the jobs in the order in which they ran."""
        done: list[str] = []
        settled: list[str] = []
        while True:
            found = self.take(1, settled=settled)
            settled = [delivery.token for delivery in found.deliveries]
            done += jobs_of(found.deliveries)
            if not settled and not found.more:
                return done

    def lapse(self, *tokens: str) -> None:
        """Let these deliveries' leases, or all, run out; somebody has looked for such all along."""
        tags = [token.rpartition("#")[0] for token in tokens] or self.client.zrange(
            "clasper:leases", 0, -1
        )
        if tags:
            self.client.zadd("clasper:leases", dict.fromkeys(tags, 1))
        self.look_after_leases()

    def look_after_leases(self) -> None:
        """As a living worker's keeper does, so that a lapsed lease is known for one."""
        seconds, microseconds = self.client.time()
        self.client.set("clasper:leases:pulse", seconds * 1000 + microseconds // 1000)
        self.client.delete("clasper:leases:hold")

    def left(self) -> set[str]:
        """The keys that remain for good, but for those that are meant to."""
        kept = {"clasper:tick", "clasper:queues", "clasper:leases:pulse"}
        found = {key.decode() for key in self.client.keys("clasper:*")} - kept
        return {key for key in found if self.client.pttl(key) < 0}

    def dead(self) -> dict[str, dict[str, str]]:
        """The dead letters by id."""
        ids = [letter.decode() for letter in self.client.zrange("clasper:dead", 0, -1)]
        return {
            letter: {
                name.decode(): value.decode("utf-8", "replace")
                for name, value in self.client.hgetall(f"clasper:dead:{letter}").items()
            }
            for letter in ids
        }
