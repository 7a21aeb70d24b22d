"""Messages through the scheduler: intake, session lanes, settling, releasing, busy sessions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clasper_worker.engine.queue.policy import ScheduleRules
from tests.unit.engine.queue.turns import Broker, job_of, jobs_of, message

pytestmark = pytest.mark.every_server

# Intake


def test_a_message_comes_as_it_was_sent_and_leaves_the_queue(broker: Broker) -> None:
    raw = message(job="a", user_id="u", message="Hello")
    broker.push(raw)
    found = broker.take()
    (delivery,) = found.deliveries
    assert delivery.raw == raw
    assert (delivery.queue, delivery.verdict, delivery.lapses) == ("clasper", "", 0)
    assert not delivery.is_redelivered
    assert not delivery.collected
    assert broker.client.llen("clasper") == 0


def test_an_empty_broker_gives_nothing(broker: Broker) -> None:
    found = broker.take()
    assert (found.deliveries, found.interrupts, found.buried, found.more) == ((), (), (), False)


def test_no_more_is_taken_than_asked_for_and_the_rest_is_said_to_be_there(broker: Broker) -> None:
    for number in range(5):
        broker.send(f"{number}", user=f"u{number}")
    found = broker.take(3)
    assert jobs_of(found.deliveries) == ["0", "1", "2"]
    assert found.more
    assert broker.jobs(3) == ["3", "4"]


def test_without_a_free_slot_messages_are_moved_but_not_taken(broker: Broker) -> None:
    broker.send("a")
    assert broker.jobs(0) == []
    assert broker.client.llen("clasper") == 0
    assert broker.jobs() == ["a"]


def test_intake_keeps_to_its_limit(broker: Broker) -> None:
    for number in range(30):
        broker.send(f"{number}", user=f"u{number}")
    assert len(broker.take(intake=10, free=100).deliveries) <= 10
    assert broker.client.llen("clasper") >= 20


@pytest.mark.parametrize("queue", ["clasper", "clasper.dispatch", "clasper.webhooks"])
def test_what_is_left_in_any_queue_is_said_to_be_there(broker: Broker, queue: str) -> None:
    for number in range(300):
        broker.push(message(job=f"{number}", task="some.task"), queue)
    found = broker.take(1000, intake=200)
    assert len(found.deliveries) < 300
    assert found.more


def test_a_backlog_in_the_first_queue_leaves_room_for_the_others(broker: Broker) -> None:
    for number in range(300):
        broker.send(f"{number}", user=f"u{number}")
    for queue in broker.queues[1:]:
        broker.push(message(job=f"in {queue}", task="some.task"), queue)
    taken = broker.jobs(1000, intake=100)
    assert {f"in {queue}" for queue in broker.queues[1:]} <= set(taken)


def test_big_messages_are_taken_in_a_few_at_a_time(broker: Broker) -> None:
    for number in range(20):
        broker.send(f"{number}", user=f"u{number}", message="x" * 200_000)
    found = broker.take(1000)
    assert 0 < len(found.deliveries) < 20
    assert found.more


def test_kombu_priority_lists_are_emptied_most_urgent_first(broker: Broker) -> None:
    for priority in (9, 3, 6, 0):
        broker.push(message(job=f"priority {priority}", task="some.task"), priority=priority)
    assert broker.jobs() == ["priority 0", "priority 3", "priority 6", "priority 9"]


def test_a_message_sent_twice_under_one_delivery_tag_comes_twice(broker: Broker) -> None:
    for _ in range(2):
        broker.push(message(job="a", tag="same", task="some.task"))
    first, second = broker.take().deliveries
    assert (job_of(first), job_of(second)) == ("a", "a")
    assert first.token != second.token
    broker.take(settled=[first.token, second.token])
    assert broker.left() == set()


@pytest.mark.parametrize("tag", ["#", "x#1", "x#1#2", "a b", "ä€😀", "%d+", "x\nx"])
def test_any_delivery_tag_will_do(broker: Broker, tag: str) -> None:
    broker.push(message(job="a", tag=tag, user_id="u"))
    delivery = broker.take_one()
    assert delivery.token.rpartition("#")[0] == tag
    broker.take(settled=[delivery.token])
    assert broker.left() == set()


# Junk

JUNK = {
    "no JSON": b"{not json",
    "nothing": b"",
    "a number": b"7",
    "a list": b"[1, 2]",
    "no headers": b'{"properties": {"delivery_tag": "t"}, "body": ""}',
    "headers without an id": b'{"properties": {"delivery_tag": "t"}, "headers": {}, "body": ""}',
    "an id that is a number": (
        b'{"properties": {"delivery_tag": "t"}, "headers": {"id": 1}, "body": ""}'
    ),
    "no tag": b'{"properties": {}, "headers": {"id": "a"}, "body": ""}',
    "no UTF-8": b"\xff\xfe\x00",
    "a tag that is no UTF-8": (
        b'{"properties": {"delivery_tag": "t\xff"}, "headers": {"id": "a"}, "body": ""}'
    ),
    "an id that is no UTF-8": (
        b'{"properties": {"delivery_tag": "t"}, "headers": {"id": "\xed\xa0\x80"}, "body": ""}'
    ),
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_junk_becomes_a_dead_letter_as_it_came_and_what_follows_runs(
    broker: Broker, junk: bytes
) -> None:
    broker.push(junk)
    broker.send("after")
    found = broker.take()
    assert jobs_of(found.deliveries) == ["after"]
    (burial,) = found.buried
    assert (burial.job_id, burial.reason) == ("", "not a message of Celery")
    letter = broker.client.hgetall(f"clasper:dead:{burial.letter_id}")
    assert (letter[b"raw"], letter[b"queue"]) == (junk, b"clasper")


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"user_id": None},
        {"user_id": 7},
        {"user_id": "   "},
        {"user_id": {"a": 1}},
        {"user_id": "u", "session_key": 7, "agent_role": [], "idempotency_key": {}, "metadata": 1},
        {"user_id": "u", "metadata": None},
        {"user_id": "u", "metadata": {"busy": ["reject"]}},
    ],
    ids=repr,
)
def test_what_the_task_itself_refuses_reaches_it(broker: Broker, kwargs: dict[str, Any]) -> None:
    broker.push(message(job="a", **kwargs))
    assert broker.drain() == ["a"]
    assert broker.left() == set()


@pytest.mark.parametrize("body", ["", "[]", "[[]]", "{}", "null", "no JSON", "[[], [], {}]"])
def test_a_body_without_arguments_reaches_the_task(broker: Broker, body: str) -> None:
    broker.push(message(job="a", body=body))
    assert broker.drain() == ["a"]
    assert broker.left() == set()


# Lanes


def test_one_turn_of_a_session_runs_at_a_time_in_order_of_arrival(broker: Broker) -> None:
    for job in "abc":
        broker.send(job)
    for job in "abc":
        (delivery,) = broker.take().deliveries
        assert job_of(delivery) == job
        assert broker.jobs() == []
        broker.take(0, settled=[delivery.token])
    assert broker.left() == set()


def test_settling_takes_the_next_of_the_session_in_the_same_step(broker: Broker) -> None:
    broker.send("a")
    broker.send("b")
    assert broker.jobs(settled=[broker.take_one().token]) == ["b"]


def test_sessions_run_side_by_side(broker: Broker) -> None:
    broker.send("a", user="u", role="writer")
    broker.send("b", user="u", role="critic")
    broker.send("c", user="v", role="writer")
    assert sorted(broker.jobs()) == ["a", "b", "c"]


def test_a_session_key_and_the_role_it_is_derived_from_are_one_session(broker: Broker) -> None:
    broker.push(message(job="a", user_id="u", session_key="user:u:writer"))
    broker.push(message(job="b", user_id="u", agent_role="writer"))
    broker.push(message(job="c", user_id=" u ", agent_role=" writer "))
    assert broker.jobs() == ["a"]
    broker.push(message(job="d", user_id="u", session_key="user:u:default"))
    broker.push(message(job="e", user_id="u"))
    assert broker.jobs() == ["d"]


def test_a_session_spans_queues(broker: Broker) -> None:
    broker.send("a", queue="clasper.dispatch")
    first = broker.take_one()
    broker.send("b", queue="clasper")
    assert broker.jobs() == []
    assert broker.jobs(settled=[first.token]) == ["b"]


def test_other_tasks_have_no_session(broker: Broker) -> None:
    for job in "ab":
        broker.push(message("clasper.heartbeat", job=job, user_id="u", agent_role="r"))
    assert broker.jobs() == ["a", "b"]


def test_settling_twice_or_with_a_strange_token_does_nothing(broker: Broker) -> None:
    for job in "abc":
        broker.send(job)
    token = broker.take_one().token
    broker.take(0, settled=[token, token, "nobody#1", "nonsense", f"{token}0"])
    assert broker.jobs() == ["b"]
    assert broker.jobs(settled=[token]) == []


# Releasing


def test_what_is_released_runs_next_and_is_marked_as_redelivered(broker: Broker) -> None:
    broker.send("a", role="one")
    broker.send("b", role="two")
    first = broker.take_one()
    again, other = broker.take(released=[first.token]).deliveries
    assert (job_of(again), job_of(other)) == ("a", "b")
    assert again.is_redelivered
    assert again.lapses == 0
    assert again.token.rpartition("#")[0] == first.token.rpartition("#")[0]
    assert again.token != first.token


def test_a_released_turn_stays_before_those_of_its_session(broker: Broker) -> None:
    broker.send("a")
    broker.send("b")
    broker.take(0, released=[broker.take_one().token])
    assert broker.drain() == ["a", "b"]


def test_a_token_is_good_for_one_delivery(broker: Broker) -> None:
    broker.send("a")
    first = broker.take_one()
    (second,) = broker.take(released=[first.token]).deliveries
    broker.take(settled=[first.token])
    assert broker.schedule().refresh([first.token, second.token]) == (first.token,)


# A busy session


def test_past_the_depth_of_its_lane_a_turn_comes_at_once_to_be_refused(broker: Broker) -> None:
    broker.rules = ScheduleRules(lane_depth=1)
    for job in ("running", "waiting", "too many"):
        broker.send(job)
    running, refused = broker.take().deliveries
    assert [(job_of(running), running.verdict)] == [("running", "")]
    assert [(job_of(refused), refused.verdict)] == [("too many", "lane_full")]
    broker.take(0, settled=[refused.token])
    assert broker.jobs(settled=[running.token]) == ["waiting"]


def test_a_lane_of_depth_nothing_holds_the_running_turn_alone(broker: Broker) -> None:
    broker.rules = ScheduleRules(lane_depth=0)
    broker.send("a")
    broker.send("b")
    assert [one.verdict for one in broker.take().deliveries] == ["", "lane_full"]


def test_a_turn_that_rejects_a_busy_session_comes_at_once_to_be_refused(broker: Broker) -> None:
    broker.send("a")
    running = broker.take_one()
    broker.send("b", metadata={"busy": "reject"})
    refused = broker.take_one()
    assert (job_of(refused), refused.verdict) == ("b", "busy")
    broker.take(0, settled=[refused.token])
    broker.take(0, settled=[running.token])
    broker.send("c", metadata={"busy": "reject"})
    assert broker.take_one().verdict == ""


def test_a_refused_turn_does_not_move_its_session_on(broker: Broker) -> None:
    broker.send("a")
    broker.send("b", metadata={"busy": "reject"})
    broker.send("c")
    running, refused = broker.take().deliveries
    assert broker.jobs(settled=[refused.token]) == []
    assert broker.jobs(settled=[running.token]) == ["c"]


def test_an_interrupting_turn_names_the_running_one_and_waits_for_its_end(broker: Broker) -> None:
    broker.send("a")
    running = broker.take_one()
    broker.send("b", metadata={"busy": "interrupt"})
    found = broker.take()
    assert (found.interrupts, found.deliveries) == (("a",), ())
    assert broker.jobs(settled=[running.token]) == ["b"]


def test_the_policy_of_the_request_goes_before_the_default(broker: Broker) -> None:
    broker.rules = ScheduleRules(busy="reject")
    broker.send("a")
    broker.send("b", metadata={"busy": "enqueue"})
    broker.send("c")
    assert [(job_of(one), one.verdict) for one in broker.take().deliveries] == [
        ("a", ""),
        ("c", "busy"),
    ]


def test_turns_that_collect_are_run_as_one(broker: Broker) -> None:
    busy = {"busy": "collect"}
    broker.send("a", metadata=busy)
    running = broker.take_one()
    for job in "bcd":
        broker.send(job, metadata=busy)
    broker.send("e")
    (group,) = broker.take(settled=[running.token]).deliveries
    assert job_of(group) == "b"
    assert [json.loads(raw)["headers"]["id"] for raw in group.collected] == ["c", "d"]
    (last,) = broker.take(settled=[group.token]).deliveries
    assert (job_of(last), last.collected) == ("e", ())
    broker.take(0, settled=[last.token])
    assert broker.left() == set()


def test_a_group_stays_together_when_it_is_released(broker: Broker) -> None:
    for job in "abc":
        broker.send(job, metadata={"busy": "collect"})
    first = broker.take_one()
    assert len(first.collected) == 2
    broker.send("d", metadata={"busy": "collect"})
    (again,) = broker.take(released=[first.token]).deliveries
    assert again.collected == first.collected
    assert broker.jobs(settled=[again.token]) == ["d"]


def test_turns_of_another_queue_are_not_collected(broker: Broker) -> None:
    broker.send("a", metadata={"busy": "collect"})
    broker.take(0)
    broker.send("b", metadata={"busy": "collect"}, queue="clasper.dispatch")
    broker.take(0)
    assert broker.take_one().collected == ()


# Withdrawing


def test_a_turn_that_waits_is_withdrawn_and_those_behind_it_move_up(broker: Broker) -> None:
    for job in "abc":
        broker.send(job)
    running = broker.take_one()
    assert broker.schedule().withdraw("b") == "withdrawn"
    assert broker.verdicts() == {"b": "cancelled"}
    assert broker.verdicts(settled=[running.token]) == {"c": ""}


def test_a_turn_that_is_ready_is_withdrawn_and_the_next_is_ready(broker: Broker) -> None:
    broker.send("a")
    broker.send("b")
    broker.take(0)
    assert broker.schedule().withdraw("a") == "withdrawn"
    assert broker.verdicts() == {"a": "cancelled", "b": ""}
    assert broker.left() == set()


def test_a_turn_that_runs_is_not_withdrawn(broker: Broker) -> None:
    broker.send("a")
    token = broker.take_one().token
    assert broker.schedule().withdraw("a") == "running"
    assert broker.schedule().refresh([token]) == ()


def test_a_turn_that_has_not_come_yet_comes_to_be_called_cancelled(broker: Broker) -> None:
    assert broker.schedule().withdraw("a") == "unknown"
    broker.send("a")
    broker.send("b")
    cancelled, other = broker.take().deliveries
    assert [(job_of(cancelled), cancelled.verdict)] == [("a", "cancelled")]
    assert [(job_of(other), other.verdict)] == [("b", "")]
    broker.take(0, settled=[cancelled.token, other.token])
    assert broker.left() == {"clasper:cancelled"}


def test_a_turn_that_runs_and_is_cancelled_is_not_run_by_the_next_worker(broker: Broker) -> None:
    broker.send("a")
    broker.take_one()
    assert broker.schedule().withdraw("a") == "running"
    broker.lapse()
    broker.schedule().reap()
    assert broker.take_one().verdict == "cancelled"


def test_a_withdrawal_of_what_never_came_is_forgotten_in_time(broker: Broker) -> None:
    broker.schedule().withdraw("a")
    broker.client.zadd("clasper:cancelled", {"a": 1})
    broker.look_after_leases()
    broker.schedule().reap()
    assert broker.left() == set()


def test_those_collected_by_a_turn_that_is_withdrawn_run_without_it(broker: Broker) -> None:
    for job in "abcd":
        broker.send(job, metadata={"busy": "collect" if job != "d" else "enqueue"})
    broker.take(0, released=[broker.take_one().token])
    assert broker.schedule().withdraw("a") == "withdrawn"
    group, cancelled = broker.take().deliveries
    assert (job_of(cancelled), cancelled.verdict, cancelled.collected) == ("a", "cancelled", ())
    assert (job_of(group), group.verdict) == ("b", "")
    assert len(group.collected) == 1
    assert broker.jobs(settled=[group.token]) == ["d"]


def test_a_retried_turn_is_still_found_by_its_turn_id(broker: Broker) -> None:
    # Celery sends a retry under the same id before it acknowledges the try.
    broker.send("a", idempotency_key="k")
    first = broker.take_one()
    broker.send("a", idempotency_key="k")
    broker.take(0)
    broker.take(0, settled=[first.token])
    (key,) = broker.client.keys("clasper:turn-jobs:*")
    assert broker.client.smembers(key) == {b"a"}
    assert broker.drain() == ["a"]
    assert broker.left() == set()
