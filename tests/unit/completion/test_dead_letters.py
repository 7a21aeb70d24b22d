"""A job that became a dead letter has failed, and who waits for its end is told, in the end."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from redis.exceptions import ConnectionError as RedisConnectionError

from clasper_worker.completion.dead_letters import Burials
from clasper_worker.config.settings import get_settings
from clasper_worker.devkit.local_stack.redis_server import RunningRedis
from clasper_worker.engine.queue.headers import NOTIFICATION_HEADER
from clasper_worker.engine.queue.policy import ScheduleRules
from clasper_worker.engine.queue.scheduler import Schedule
from clasper_worker.engine.queue.scheduler_types import Burial
from clasper_worker.errors import DeadLetterError
from clasper_worker.periodic.notification import NotificationKey
from tests.unit.completion.conftest import HOOK, MARK, Listeners
from tests.unit.engine.queue.turns import QUEUES, message

NOTE = f"clasper:jobs:{NotificationKey('u1', 'n1').note}"


class Site:
    """A broker in a real Redis, and what is done about the letters in it."""

    def __init__(self, client: redis.Redis, app: Celery) -> None:
        self.redis = client
        self.schedule = Schedule(client, ScheduleRules(), [(name, [name]) for name in QUEUES])
        self.burials = Burials(self.schedule, app)
        self.app = app

    def bury(self, task: str = "clasper.send", **more: Any) -> Burial:
        job = uuid.uuid4().hex
        request = {"user_id": "u1", "message": "Hi", "idempotency_key": "k", "webhook": HOOK}
        headers = {NOTIFICATION_HEADER: MARK} if task == "clasper.send" else None
        self.redis.lpush("clasper", message(task, job=job, headers=headers, **{**request, **more}))
        (delivery,) = self.schedule.exchange(free=1).deliveries
        (burial,) = self.schedule.bury(delivery.token, "a reason")
        return burial

    def end(self, buried: Burial) -> tuple[str, str]:
        stored = self.app.backend.get_task_meta(buried.job_id, cache=False)
        return stored["status"], type(stored["result"]).__name__


@pytest.fixture
def site(
    redis_server: RunningRedis, webhook_app: Celery, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    monkeypatch.setenv("CLASPER_REDIS_URL", redis_server.url)
    get_settings.cache_clear()
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield Site(client, webhook_app)
    get_settings.cache_clear()


def test_its_job_has_failed_before_its_webhook_says_so(site: Site, listeners: Listeners) -> None:
    ends: list[tuple[str, str]] = []
    webhook = site.app.tasks["clasper.webhook"]
    published = webhook.apply_async

    def apply_async(*args: Any, **options: Any) -> Any:
        ends.append(site.end(buried))
        return published(*args, **options)

    webhook.apply_async = apply_async
    buried = site.bury()
    assert site.burials.report([buried]) == [buried]
    assert ends == [("FAILURE", DeadLetterError.__name__)]
    assert listeners.heard == ["publish agent.error"]
    (payload,) = listeners.payloads
    assert (payload["status"], payload["code"]) == ("failed", "dead_letter")
    assert site.redis.get(NOTE) == b"failed"


def test_one_whose_webhook_the_broker_does_not_take_is_named_again_and_the_others_are_told(
    site: Site, listeners: Listeners
) -> None:
    first, second = site.bury(), site.bury(webhook=None)
    listeners.down = {"broker"}
    assert site.burials.report([first, second]) == [second]
    listeners.down = set()
    assert site.burials.report([first]) == [first]
    assert len(listeners.deliveries) == 1


def test_one_whose_end_cannot_be_stored_is_named_again_and_not_reported(
    site: Site, listeners: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise RedisConnectionError("away")

    monkeypatch.setattr(site.app.backend, "store_result", away)
    assert site.burials.report([site.bury()]) == []
    assert (listeners.heard, site.redis.get(NOTE)) == ([], None)


def test_one_that_was_replayed_or_told_of_is_left_alone(site: Site, listeners: Listeners) -> None:
    told, replayed = site.bury(), site.bury()
    site.schedule.told([told])
    assert site.schedule.replay(replayed.letter_id) == "replayed"
    assert site.burials.report([told, replayed]) == [told, replayed]
    assert listeners.heard == []
    assert {site.end(one)[0] for one in (told, replayed)} == {"PENDING"}


def test_a_job_that_is_no_turn_fails_and_has_no_webhook_of_a_turn(
    site: Site, listeners: Listeners
) -> None:
    buried = site.bury("shop.work")
    assert site.burials.report([buried]) == [buried]
    assert (site.end(buried)[0], listeners.heard) == ("FAILURE", [])
