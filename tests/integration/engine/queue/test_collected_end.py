"""A turn that ends without having run leaves those that were collected into it to run."""

import json
from collections.abc import Iterator

import pytest
from kombu.message import Message

from clasper_worker.completion.worker_ends import TurnRequest
from clasper_worker.config.settings import get_settings
from clasper_worker.engine.queue.delivery import COLLECTED_HEADER, LEASE_HEADER
from clasper_worker.engine.queue.scheduler_types import Delivery
from clasper_worker.tasks.send import send
from tests.integration.engine.queue.conftest import Site

pytestmark = [
    pytest.mark.integration,
    # Celery's result backend, with redis-py 8.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]


@pytest.fixture
def configured(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("CELERY_BROKER_URL", site.settings.celery_broker_url)
    get_settings.cache_clear()
    yield site
    get_settings.cache_clear()


def take_group(site: Site) -> Delivery:
    """The delivery of a job ``a`` with which ``b`` and ``c`` were collected."""
    for job in "abc":
        site.send(job, metadata={"busy": "collect"})
    return site.take_one()


def request_of(site: Site, delivery: Delivery) -> TurnRequest:
    """The request of a delivery of the job ``a`` with which ``b`` and ``c`` were collected."""
    arguments = {"user_id": "u1", "agent_role": "r", "message": "A secret word"}
    message = Message(
        body=json.dumps([[], arguments, {}]),
        content_type="application/json",
        content_encoding="utf-8",
        headers={
            "id": "a",
            "task": "clasper.send",
            LEASE_HEADER: delivery.token,
            COLLECTED_HEADER: [{"job_id": job, "request": arguments} for job in "bc"],
        },
    )
    request = TurnRequest(message, app=site.client.app, task=send)
    request._task.backend = site.client.app.backend
    return request


@pytest.mark.parametrize("expired", [True, False])
def test_those_of_a_turn_that_never_ran_run_by_themselves(configured: Site, expired: bool) -> None:
    site = configured
    delivery = take_group(site)
    assert len(delivery.collected) == 2
    request = request_of(site, delivery)
    reason = "expired" if expired else "revoked"
    request._announce_revoked(reason, False, None, expired)
    assert site.state("a") == "REVOKED"
    assert [site.state(job) for job in "bc"] == ["PENDING", "PENDING"]
    following = site.take(settled=[delivery.token])
    assert [json.loads(one.raw)["headers"]["id"] for one in following] == ["b"]


def test_one_that_waits_for_its_own_turn_again_does_not_end_with_the_one_that_was_stopped(
    configured: Site,
) -> None:
    site = configured
    delivery = take_group(site)
    request = request_of(site, delivery)
    assert site.schedule.part(delivery.token, ["c"]) == 1  # as a pool's child process does
    request._announce_revoked("terminated", True, 15, False)
    assert [site.state(job) for job in "abc"] == ["REVOKED", "REVOKED", "PENDING"]
    following = site.take(settled=[delivery.token])
    assert [json.loads(one.raw)["headers"]["id"] for one in following] == ["c"]


def test_those_of_a_turn_that_another_worker_has_taken_over_end_with_that(
    configured: Site,
) -> None:
    site = configured
    delivery = take_group(site)
    request = request_of(site, delivery)
    site.take(0, released=[delivery.token])
    request._announce_revoked("terminated", True, 15, False)
    assert [site.state(job) for job in "bc"] == ["PENDING", "PENDING"]
