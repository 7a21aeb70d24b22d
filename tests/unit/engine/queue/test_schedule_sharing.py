"""How users and queues share the workers."""

from __future__ import annotations

from collections import Counter

import pytest

from clasper_worker.engine.queue.policy import ScheduleRules
from clasper_worker.engine.queue.scheduler_types import Delivery
from tests.unit.engine.queue.turns import QUEUES, Broker, job_of, jobs_of, message

BACKLOG = 1000


def send_sessions(broker: Broker, user: str, count: int, queue: str = "clasper") -> None:
    for number in range(count):
        broker.send(f"{user}{number}", user=user, role=f"r{number}", queue=queue)


def test_users_take_turns(broker: Broker) -> None:
    for user in "uvw":
        send_sessions(broker, user, 3)
    assert broker.drain() == ["u0", "v0", "w0", "u1", "v1", "w1", "u2", "v2", "w2"]


def test_no_more_turns_of_a_user_run_than_the_cap(broker: Broker) -> None:
    broker.rules = ScheduleRules(tenant_concurrency=2)
    send_sessions(broker, "u", 5)
    send_sessions(broker, "v", 1)
    first, other, second = broker.take().deliveries
    assert jobs_of([first, other, second]) == ["u0", "v0", "u1"]
    assert broker.jobs() == []
    assert broker.jobs(settled=[other.token]) == []
    assert broker.jobs(settled=[first.token]) == ["u2"]
    assert broker.jobs(released=[second.token]) == ["u1"]


def test_the_cap_holds_over_queues_and_workers(broker: Broker) -> None:
    broker.rules = ScheduleRules(tenant_concurrency=2)
    for queue in QUEUES:
        send_sessions(broker, "u", 2, queue)
    taken: list[Delivery] = []
    for queue in QUEUES:
        taken += broker.schedule(queues=[queue]).exchange(free=10).deliveries
    assert len(taken) == 2


def test_a_slot_that_one_queue_gives_back_another_can_use(broker: Broker) -> None:
    broker.rules = ScheduleRules(tenant_concurrency=1)
    send_sessions(broker, "u", 1, "clasper.dispatch")
    dispatch = broker.schedule(queues=["clasper.dispatch"])
    (running,) = dispatch.exchange(free=1).deliveries
    send_sessions(broker, "u", 1, "clasper")
    turns = broker.schedule(queues=["clasper"])
    assert turns.exchange(free=1).deliveries == ()
    dispatch.exchange(free=0, settled=[running.token])
    assert len(turns.exchange(free=1).deliveries) == 1


@pytest.mark.parametrize(("old", "new"), [(1, 50), (50, 1)])
def test_workers_that_differ_about_the_cap_leave_nobody_waiting_for_ever(
    broker: Broker, old: int, new: int
) -> None:
    # As during a rolling change of the setting.
    send_sessions(broker, "u", 4)
    first = broker.schedule(tenant_concurrency=1)
    (running,) = first.exchange(free=10).deliveries
    second = broker.schedule(tenant_concurrency=50)
    worker = second if old == 1 else first
    assert first.exchange(free=10).deliveries == ()
    assert worker.exchange(free=0, settled=[running.token]).deliveries == ()
    assert broker.schedule(tenant_concurrency=new).exchange(free=1).deliveries


def test_tasks_without_a_user_are_not_capped(broker: Broker) -> None:
    broker.rules = ScheduleRules(tenant_concurrency=1)
    for number in range(3):
        broker.push(message(job=f"{number}", task="some.task"))
    assert len(broker.jobs()) == 3


def test_one_turn_does_not_wait_for_another_users_thousand(broker: Broker) -> None:
    broker.rules = ScheduleRules(tenant_concurrency=5)
    send_sessions(broker, "u", BACKLOG)
    send_sessions(broker, "v", 1)
    exchanges = 0
    settled: list[str] = []
    while True:
        found = broker.take(10, settled=settled)
        exchanges += 1
        if "v0" in jobs_of(found.deliveries):
            break
        assert exchanges <= BACKLOG / 100  # it comes with the intake, not after the backlog
        settled = [delivery.token for delivery in found.deliveries]


def test_a_backlog_of_one_session_holds_one_slot(broker: Broker) -> None:
    broker.rules = ScheduleRules(lane_depth=BACKLOG)
    for number in range(50):
        broker.send(f"{number}")
    assert broker.jobs() == ["0"]
    assert broker.drain() == []


def test_the_first_queue_goes_first_and_the_others_have_their_share(broker: Broker) -> None:
    for queue in QUEUES:
        for number in range(100):
            broker.push(message(job=f"{queue}/{number}", task="some.task"), queue)
    broker.take(0, intake=1000)
    taken = Counter(job.partition("/")[0] for job in broker.jobs(100))
    assert taken == {
        "clasper": 70,
        "clasper.dispatch": 10,
        "clasper.periodic": 10,
        "clasper.webhooks": 10,
    }


@pytest.mark.parametrize("count", [2, 5, 9])
def test_no_queue_starves_however_many_there_are(broker: Broker, count: int) -> None:
    broker.queues = [f"q{number}" for number in range(count)]
    for queue in broker.queues:
        for number in range(100):
            broker.push(message(job=f"{queue}/{number}", task="some.task"), queue)
    broker.take(0, intake=10_000)
    taken = Counter(job.partition("/")[0] for job in broker.jobs(90))
    assert set(taken) == set(broker.queues)
    assert taken["q0"] > max(taken[queue] for queue in broker.queues[1:])


def test_a_queue_with_nothing_gives_its_share_to_the_others(broker: Broker) -> None:
    for number in range(20):
        broker.push(message(job=f"{number}", task="some.task"), "clasper.webhooks")
    assert broker.jobs(20) == [f"{number}" for number in range(20)]


def test_a_worker_takes_from_the_queues_it_serves_alone(broker: Broker) -> None:
    broker.send("a", user="u")
    broker.send("b", user="v", queue="clasper.dispatch")
    (only,) = broker.schedule(queues=["clasper.dispatch"]).exchange(free=10).deliveries
    assert job_of(only) == "b"
    assert broker.jobs() == ["a"]
