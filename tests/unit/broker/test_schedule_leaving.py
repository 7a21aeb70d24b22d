"""Jobs that are cancelled while they wait, and whose senders asked for a webhook that says so."""

from __future__ import annotations

import json

import pytest

from tests.unit.broker.turns import Broker, job_of, jobs_of

HOOK = {"url": "https://example.com/"}


def test_it_leaves_its_lane_and_is_delivered_as_cancelled(broker: Broker) -> None:
    broker.send("a")
    broker.send("b", webhook=HOOK)
    broker.send("c")
    running = broker.take_one()
    assert broker.schedule().withdraw("b") == "leaving"
    delivery = broker.take_one()
    assert (job_of(delivery), delivery.verdict) == ("b", "cancelled")
    assert json.loads(delivery.raw)["headers"]["id"] == "b"
    assert broker.jobs(settled=[delivery.token]) == []
    (last,) = broker.take(settled=[running.token]).deliveries
    assert job_of(last) == "c"
    broker.take(0, settled=[last.token])
    assert broker.left() == set()


def test_its_users_cap_does_not_keep_it_back(broker: Broker) -> None:
    broker.send("a", role="x")
    broker.send("b", role="y", webhook=HOOK)
    capped = broker.schedule(tenant_concurrency=1)
    assert jobs_of(capped.exchange(free=10).deliveries) == ["a"]
    assert broker.schedule().withdraw("b") == "leaving"
    (delivery,) = capped.exchange(free=10).deliveries
    assert (job_of(delivery), delivery.verdict) == ("b", "cancelled")


def test_to_cancel_it_again_changes_nothing(broker: Broker) -> None:
    broker.send("a", webhook=HOOK)
    broker.take(0)
    schedule = broker.schedule()
    assert [schedule.withdraw("a") for _ in range(2)] == ["leaving", "leaving"]
    assert broker.jobs() == ["a"]
    assert broker.jobs() == []


def test_a_collected_one_leaves_the_turn_that_it_was_to_be_run_with(broker: Broker) -> None:
    for job in "abc":
        broker.send(job, metadata={"busy": "collect"}, webhook=HOOK)
    head = broker.take_one()
    assert broker.schedule().withdraw("b") == "leaving"
    delivery = broker.take_one()
    assert (job_of(delivery), delivery.verdict) == ("b", "cancelled")
    (again,) = broker.take(released=[head.token]).deliveries
    assert [json.loads(raw)["headers"]["id"] for raw in again.collected] == ["c"]
    broker.take(0, settled=[again.token, delivery.token])
    assert broker.left() == set()


@pytest.mark.parametrize("webhook", [{}, {"webhook": None}])
def test_one_that_asks_for_no_webhook_is_gone(broker: Broker, webhook: dict[str, None]) -> None:
    broker.send("a", **webhook)
    broker.take(0)
    assert broker.schedule().withdraw("a") == "withdrawn"
    assert broker.drain() == []
    assert broker.left() == set()


def test_one_that_no_worker_has_taken_in_is_taken_in_as_cancelled(broker: Broker) -> None:
    broker.send("a", webhook=HOOK)
    schedule = broker.schedule()
    assert schedule.withdraw("a") == "unknown"  # and remembered
    (raw,) = broker.client.lrange("clasper", 0, -1)
    assert schedule.admit("clasper", "clasper", raw) is True
    assert schedule.admit("clasper", "clasper", raw) is False
    delivery = broker.take_one()
    assert (job_of(delivery), delivery.verdict) == ("a", "cancelled")
    broker.take(0, settled=[delivery.token])
    assert broker.left() == {"clasper:cancelled"}
