"""Those who asked for a job that was buried are told: by its result, and by their webhook."""

import base64
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from clasper_worker.completion.dead_letters import Burials
from clasper_worker.config.names import WEBHOOK_QUEUE
from clasper_worker.config.settings import get_settings
from clasper_worker.engine.queue.headers import NOTIFICATION_HEADER
from clasper_worker.engine.queue.scheduler import open_schedule
from clasper_worker.engine.queue.scheduler_types import Burial
from clasper_worker.observability.metrics import counted
from clasper_worker.periodic.notification import GIVEN_UP_SECONDS, NotificationKey
from clasper_worker.tasks.webhook import webhook
from tests.integration.engine.queue.conftest import Site
from tests.unit.engine.queue.turns import message

pytestmark = [
    pytest.mark.integration,
    # Celery's result backend, with redis-py 8.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]
HOOK = {"url": "https://example.com/"}


@pytest.fixture
def app(site: Site, caplog: pytest.LogCaptureFixture) -> Iterator[Celery]:
    """A worker's app on the site's broker: Celery shares tasks among apps."""
    caplog.set_level(logging.CRITICAL)
    get_settings.cache_clear()
    url = site.settings.celery_broker_url
    made = Celery("test", broker=url, backend=url, set_as_current=False)
    assert webhook.name in made.tasks
    yield made
    made.close()
    get_settings.cache_clear()


@pytest.fixture
def burials(site: Site, app: Celery) -> Iterator[Burials]:
    schedule = open_schedule(site.settings)
    assert schedule is not None
    yield Burials(schedule, app)
    schedule.close()


def webhooks(site: Site) -> list[dict[str, Any]]:
    """What is queued for receivers."""
    found: list[dict[str, Any]] = []
    with site.client.app.connection_for_read() as connection:
        queue = site.client.app.amqp.queues[WEBHOOK_QUEUE](connection.default_channel)
        while (taken := queue.get(no_ack=True)) is not None:
            found.append(json.loads(taken.payload[1]["body"]))
    return found


MARK = {NOTIFICATION_HEADER: {"notification_id": "n1"}}


def bury(
    site: Site, job: str, headers: dict[str, Any] | None = None, **fields: Any
) -> tuple[Burial, ...]:
    fields = {"user_id": "u1", "agent_role": "r", "message": "Hello", **fields}
    site.redis.lpush("clasper", message(job=job, headers=headers, **fields))
    return site.schedule.bury(site.take_one().token, "a reason")


def test_a_turn_that_asks_for_a_webhook_gets_one_however_often_it_is_told(
    site: Site, burials: Burials
) -> None:
    buried = bury(site, "a", webhook=HOOK, idempotency_key="k")
    assert burials.report(buried) == list(buried)
    assert burials.report(buried) == list(buried)
    assert site.state("a") == "FAILURE"
    first, again = webhooks(site)
    assert first["delivery_id"] == again["delivery_id"]
    assert (first["event"], first["code"], first["job_id"]) == ("agent.error", "dead_letter", "a")
    assert (first["user_id"], first["details"]) == ("u1", {"job_id": "a"})


def test_one_that_asks_for_none_is_told_by_its_result_alone(site: Site, burials: Burials) -> None:
    buried = bury(site, "a")
    assert burials.report(buried) == list(buried)
    assert (site.state("a"), webhooks(site)) == ("FAILURE", [])


def test_a_notification_whose_turn_was_buried_is_left_alone_for_a_day(
    site: Site, burials: Burials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLASPER_REDIS_URL", site.settings.celery_broker_url)
    get_settings.cache_clear()
    note = NotificationKey("u1", "n1").note
    site.redis.set(f"clasper:jobs:{note}", "enqueued", ex=3600)
    before = counted("notification", "failed")
    buried = bury(site, "a", MARK)
    assert burials.report(buried) == list(buried)
    assert site.redis.get(f"clasper:jobs:{note}") == b"failed"
    assert site.redis.ttl(f"clasper:jobs:{note}") > GIVEN_UP_SECONDS / 2
    assert counted("notification", "failed") == before + 1


def test_a_notification_of_which_no_note_can_be_left_is_not_said_to_be_known(
    site: Site, burials: Burials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLASPER_REDIS_URL", "redis://127.0.0.1:1")
    get_settings.cache_clear()
    buried = bury(site, "a", MARK)
    assert burials.report(buried) == []


def test_a_message_whose_webhook_cannot_be_read_is_told_by_its_result(
    site: Site, burials: Burials
) -> None:
    site.redis.lpush("clasper", message(job="a", body="not JSON"))
    buried = site.schedule.bury(site.take_one().token, "a reason")
    assert burials.report(buried) == list(buried)
    assert (site.state("a"), webhooks(site)) == ("FAILURE", [])


def test_what_nobody_asked_for_by_any_name_needs_no_telling(site: Site, burials: Burials) -> None:
    site.redis.lpush("clasper", b"junk")
    buried = site.schedule.exchange(free=1).buried
    assert burials.report(buried) == list(buried)
    assert webhooks(site) == []


def test_who_could_not_be_told_is_not_said_to_know(site: Site, burials: Burials) -> None:
    buried = bury(site, "a", webhook=HOOK)
    site.redis.set(WEBHOOK_QUEUE, "not a list: nothing can be put on this queue")
    assert burials.report(buried) == []
    site.redis.delete(WEBHOOK_QUEUE)
    assert burials.report(buried) == list(buried)
    assert len(webhooks(site)) == 1


def test_a_letter_that_was_replayed_meanwhile_is_not_told_of(site: Site, burials: Burials) -> None:
    buried = bury(site, "a", webhook=HOOK)
    assert site.schedule.replay(buried[0].letter_id) == "replayed"
    assert burials.report(buried) == list(buried)
    assert site.state("a") == "PENDING"
    assert webhooks(site) == []


def test_what_another_worker_has_told_is_not_told_again(site: Site, burials: Burials) -> None:
    buried = bury(site, "a", webhook=HOOK)
    burials.report(buried)
    site.schedule.told(buried)
    burials.report(buried)
    assert len(webhooks(site)) == 1


def test_the_errbacks_of_a_buried_job_are_sent_to_the_callback_queue(
    site: Site, burials: Burials, app: Celery
) -> None:
    app.conf.task_routes = ("clasper_worker.engine.queue.follow_ups.route_follow_up",)
    errback = app.signature("shop.note", kwargs={"where": "x"})
    note = app.signature("shop.other", args=("x",), options={"queue": "clasper", "task_id": "a"})
    note.apply_async(link_error=errback)
    buried = site.schedule.bury(site.take_one().token, "a reason")
    assert burials.report(buried) == list(buried)
    (sent,) = site.redis.lrange("celery", 0, -1)
    message = json.loads(sent)
    assert message["headers"]["task"] == "shop.note"
    assert json.loads(base64.b64decode(message["body"]))[0] == ["a"]


@pytest.mark.parametrize("errbacks", ["x", [7], [{"task": 7}], {"a": 1}])
def test_follow_ups_that_are_none_keep_nobody_from_being_told(
    site: Site, burials: Burials, errbacks: Any
) -> None:
    body = json.dumps([[], {}, {"errbacks": errbacks, "chord": errbacks, "chain": errbacks}])
    site.redis.lpush("clasper", message("shop.other", job="a", body=body))
    buried = site.schedule.bury(site.take_one().token, "a reason")
    assert burials.report(buried) == list(buried)
    assert site.state("a") == "FAILURE"
