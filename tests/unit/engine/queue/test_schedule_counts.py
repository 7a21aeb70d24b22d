"""What the scheduler counts and tells of: queues, lanes, waits, losses and dead letters."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from clasper_worker.engine.queue.queue_status import QueueStatus, read_broker_status
from clasper_worker.engine.queue.scheduler_types import QueuedTurn
from tests.unit.engine.queue.turns import Broker, message

pytestmark = pytest.mark.every_server


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def depths(broker: Broker, queue: str = "clasper") -> tuple[int, int, int, int]:
    one = read_broker_status(broker.schedule()).queues[queue]
    return one.arrived, one.ready, one.behind, one.running


def test_a_queue_is_counted_by_where_its_messages_are(broker: Broker) -> None:
    for job in "abc":
        broker.send(job)
    broker.send("d", user="u2")
    assert depths(broker) == (4, 0, 0, 0)
    broker.take(0)
    assert depths(broker) == (0, 2, 2, 0)
    (first,) = broker.take(1).deliveries
    assert depths(broker) == (0, 1, 2, 1)
    broker.take(0, settled=[first.token])
    assert depths(broker) == (0, 2, 1, 0)
    broker.schedule().withdraw("c")
    broker.drain()
    assert depths(broker) == (0, 0, 0, 0)
    assert read_broker_status(broker.schedule()).queues["clasper"] == QueueStatus()


def test_messages_of_every_priority_and_every_queue_are_counted(broker: Broker) -> None:
    for priority in (0, 3, 6, 9):
        broker.push(message(job=f"p{priority}"), priority=priority)
    assert depths(broker) == (4, 0, 0, 0)
    own = Broker(broker.client, queues=["of-my-own"])
    own.push(message(task="some.task", job="x"), "of-my-own")
    own.take(0)
    assert depths(broker, "of-my-own") == (0, 1, 0, 0)


def test_the_status_takes_one_call_however_much_waits(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        broker.send(f"{number}", user=f"u{number}")
    broker.take(0)
    schedule = broker.schedule()
    sent: list[str] = []
    execute = schedule.client.execute_command
    monkeypatch.setattr(
        schedule.client,
        "execute_command",
        lambda *a, **k: sent.append(a[0]) or execute(*a, **k),  # type: ignore[func-returns-value]
    )
    assert read_broker_status(schedule).waiting == 300
    assert sent == ["EVAL"]


def test_what_an_older_worker_left_counted_is_counted_no_more(broker: Broker) -> None:
    """It moves messages without counting them."""
    broker.client.zadd("clasper:depth:ready:clasper", {"gone": 1})
    broker.client.zadd("clasper:depth:behind:clasper", {"gone-too": 1})
    broker.send("a")
    broker.take(0)
    broker.look_after_leases()
    broker.schedule().reap()
    assert depths(broker) == (0, 1, 0, 0)


def test_what_an_older_worker_runs_is_counted(broker: Broker) -> None:
    """What runs is counted by the leases alone, whoever took it."""
    for queue in ("clasper", "clasper", "clasper.webhooks"):
        broker.push(message(task="some.task"), queue)
    taken = broker.take().deliveries
    for key in broker.client.keys("clasper:depth:*"):
        broker.client.delete(key)
    assert [depths(broker)[3], depths(broker, "clasper.webhooks")[3]] == [2, 1]
    broker.take(0, settled=[one.token for one in taken])
    assert depths(broker)[3] + depths(broker, "clasper.webhooks")[3] == 0


def test_worker_processes_are_counted_while_they_are_heard_of(broker: Broker) -> None:
    one, other = broker.schedule(), broker.schedule()
    for schedule in (one, other, one):
        schedule.reap()
    assert read_broker_status(one).workers == 2
    broker.client.zadd(
        "clasper:workers", dict.fromkeys(broker.client.zrange("clasper:workers", 0, -1), 1)
    )
    one.reap()
    assert read_broker_status(one).workers == 1
    assert broker.client.pttl("clasper:workers") > 0


def test_a_turn_that_waits_for_its_session_is_told_of_once_with_its_place(broker: Broker) -> None:
    broker.send("a")
    broker.send("b", idempotency_key="k")
    broker.send("c", session_key="user:u:r")
    broker.send("elsewhere", role="other")
    found = broker.take(0)
    assert [(one.job_id, one.ahead) for one in found.queued] == [("b", 1), ("c", 2)]
    assert found.queued[1] == QueuedTurn("c", "c", "u", "user:u:r", 2)
    assert found.queued[0].turn_id != "b"
    assert broker.take(1).queued == ()


def test_the_same_turn_asked_for_again_is_not_told_to_wait(broker: Broker) -> None:
    """It has begun, and waits for nothing but its own result."""
    broker.send("a", idempotency_key="k")
    broker.take(1)
    broker.send("again", idempotency_key="k")
    broker.send("a", idempotency_key="k")
    assert broker.take(0).queued == ()


@pytest.mark.parametrize("busy", ["reject"])
def test_a_turn_that_is_refused_does_not_wait(broker: Broker, busy: str) -> None:
    broker.send("a")
    broker.send("b", metadata={"busy": busy})
    assert broker.take(0).queued == ()


def test_the_time_behind_others_of_the_session_is_told_apart(broker: Broker) -> None:
    broker.send("a")
    broker.send("b")
    first = broker.take_one()
    assert first.behind == 0
    tag = broker.client.hget("clasper:jobs", "b").decode()
    broker.client.hincrby(f"clasper:message:{tag}", "at", -60_000)
    broker.take(0, settled=[first.token])
    (second,) = broker.take().deliveries
    assert 60 <= second.behind <= second.waited
    broker.take(0, released=[second.token])
    assert broker.take_one().behind == 0


def test_dead_letters_are_counted_once_by_their_code(broker: Broker) -> None:
    name = "clasper_dead_letters_put_total"
    codes = ("model_auth", "unreadable", "worker_lost", "unknown_task")
    before = {code: counted(name, code=code) for code in codes}
    broker.push(b"junk")
    broker.send("doomed")
    doomed = broker.take_one()
    broker.schedule().doom(doomed.token, "model_auth: refused")
    broker.take(0, settled=[doomed.token])
    broker.send("nameless")
    broker.schedule().bury(broker.take_one().token, "no such task: 'x'")
    broker.send("poison")
    for _ in range(broker.rules.attempts):
        broker.take(1)
        broker.lapse()
        broker.schedule().reap()
    broker.schedule().reap()  # names those that nobody was told of again
    assert len(broker.dead()) == 4
    assert {code: counted(name, code=code) - before[code] for code in codes} == dict.fromkeys(
        codes, 1.0
    )


def test_redeliveries_and_what_was_lost_are_counted(broker: Broker) -> None:
    def now() -> tuple[float, float, float]:
        lost = "clasper_deliveries_lost_total"
        return (
            counted("clasper_redeliveries_total", queue="clasper"),
            counted(lost, cause="lease_lapsed"),
            counted(lost, cause="process_lost"),
        )

    before = now()
    broker.send("a")
    broker.take(1)
    broker.lapse()
    broker.schedule().reap()
    again = broker.take_one()
    broker.take(0, lost=[again.token])
    broker.take_one()
    after = now()
    assert tuple(b - a for a, b in zip(before, after, strict=True)) == (2, 1, 1)
