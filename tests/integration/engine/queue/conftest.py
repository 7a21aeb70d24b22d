"""A broker in a real Redis, what callers do to it, and what a worker takes from it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from clasper_worker.client import ClasperClient
from clasper_worker.config.names import QUEUES
from clasper_worker.config.settings import Settings
from clasper_worker.devkit.local_stack.redis_server import RunningRedis
from clasper_worker.engine.queue.policy import ScheduleRules
from clasper_worker.engine.queue.scheduler import Schedule
from clasper_worker.engine.queue.scheduler_types import Delivery


@dataclass(frozen=True)
class Site:
    """A broker, seen by callers and by one worker."""

    settings: Settings
    redis: redis.Redis
    client: ClasperClient
    schedule: Schedule

    def send(self, job: str, **fields: Any) -> None:
        request = {"user_id": "u1", "agent_role": "r", "message": "A secret word"}
        request = {**request, "task_title": "T", **fields}
        self.client.send(request, job_id=job)

    def take(self, free: int = 10, **more: Any) -> tuple[Delivery, ...]:
        return self.schedule.exchange(free=free, **more).deliveries

    def take_one(self) -> Delivery:
        (delivery,) = self.take(1)
        return delivery

    def end(self, job: str, state: str = "SUCCESS") -> None:
        """Store a job's result, as a worker does before it settles the message."""
        result = RuntimeError("it failed") if state == "FAILURE" else {"status": "ok"}
        self.client.app.backend.store_result(job, result, state)

    def state(self, job: str) -> str:
        return str(self.client.app.backend.get_task_meta(job, cache=False)["status"])


@pytest.fixture
def site(redis_server: RunningRedis, settings_of: Callable[..., Settings]) -> Iterator[Site]:
    settings = settings_of(celery_broker_url=redis_server.url)
    with redis.Redis.from_url(redis_server.url) as connection:
        connection.flushall()
        client = ClasperClient.from_settings(settings)
        worker = Schedule(connection, ScheduleRules(), [(name, [name]) for name in QUEUES])
        yield Site(settings, connection, client, worker)
        client.close()
