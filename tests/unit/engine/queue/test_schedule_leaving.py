"""Jobs that are cancelled while they wait: a worker tells of them, whoever asked for it."""

from __future__ import annotations

import json

from tests.unit.engine.queue.turns import Broker, job_of, jobs_of


def test_it_leaves_its_lane_and_is_delivered_as_cancelled(broker: Broker) -> None:
    broker.send("a")
    broker.send("b")
    broker.send("c")
    running = broker.take_one()
    assert broker.schedule().withdraw("b") == "withdrawn"
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
    broker.send("b", role="y")
    capped = broker.schedule(tenant_concurrency=1)
    assert jobs_of(capped.exchange(free=10).deliveries) == ["a"]
    assert broker.schedule().withdraw("b") == "withdrawn"
    (delivery,) = capped.exchange(free=10).deliveries
    assert (job_of(delivery), delivery.verdict) == ("b", "cancelled")


def test_to_cancel_it_again_changes_nothing(broker: Broker) -> None:
    broker.send("a")
    broker.take(0)
    schedule = broker.schedule()
    assert [schedule.withdraw("a") for _ in range(2)] == ["withdrawn", "leaving"]
    assert broker.jobs() == ["a"]
    assert broker.jobs() == []


def test_a_collected_one_leaves_the_turn_that_it_was_to_be_run_with(broker: Broker) -> None:
    for job in "abc":
        broker.send(job, metadata={"busy": "collect"})
    head = broker.take_one()
    assert broker.schedule().withdraw("b") == "withdrawn"
    delivery = broker.take_one()
    assert (job_of(delivery), delivery.verdict) == ("b", "cancelled")
    (again,) = broker.take(released=[head.token]).deliveries
    assert [json.loads(raw)["headers"]["id"] for raw in again.collected] == ["c"]
    broker.take(0, settled=[again.token, delivery.token])
    assert broker.left() == set()


def test_a_collected_one_that_left_and_is_replayed_is_not_ended_with_the_turn(
    broker: Broker,
) -> None:
    for job in "abc":
        broker.send(job, metadata={"busy": "collect"})
    head = broker.take_one()
    assert broker.schedule().withdraw("b") == "withdrawn"
    delivery = broker.take_one()
    (letter,) = broker.schedule().bury(delivery.token, "a reason")
    assert broker.schedule().replay(letter.letter_id) == "replayed"
    broker.take(0)
    (replayed,) = broker.take(settled=[head.token]).deliveries
    assert (job_of(replayed), replayed.verdict) == ("b", "")
    broker.take(0, settled=[replayed.token])
    assert broker.left() == set()


def test_one_that_is_to_stop_and_lost_its_worker_leaves_its_lane(broker: Broker) -> None:
    broker.send("a")
    broker.send("b")
    token = broker.take_one().token
    schedule = broker.schedule()
    assert schedule.withdraw("a") == "running"
    broker.take(0, released=[token])
    assert schedule.withdraw("a") == "withdrawn"
    assert schedule.withdraw("a") == "leaving"
    assert broker.verdicts() == {"a": "cancelled", "b": ""}


def test_one_that_no_worker_has_taken_in_is_taken_in_as_cancelled(broker: Broker) -> None:
    broker.send("a")
    schedule = broker.schedule()
    assert schedule.withdraw("a") == "unknown"  # and remembered
    (raw,) = broker.client.lrange("clasper", 0, -1)
    assert schedule.admit("clasper", "clasper", raw) is True
    assert schedule.admit("clasper", "clasper", raw) is False
    delivery = broker.take_one()
    assert (job_of(delivery), delivery.verdict) == ("a", "cancelled")
    broker.take(0, settled=[delivery.token])
    assert broker.left() == {"clasper:cancelled"}
