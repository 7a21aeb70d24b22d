"""What producers, restarts and clocks do to the scheduler without meaning to."""

from __future__ import annotations

import json

from clasper_worker.engine.queue.policy import ScheduleRules
from tests.unit.engine.queue.turns import Broker, job_of, jobs_of, message


def tell(broker: Broker) -> list[str]:
    """Tell the callers of dead letters, as a worker does; their jobs."""
    _, buried = broker.schedule().reap()
    broker.schedule().told(buried)
    return [burial.job_id for burial in buried]


# The same turn, asked for again


def test_a_turn_is_not_interrupted_by_those_who_ask_for_it_again(broker: Broker) -> None:
    again = {"idempotency_key": "k", "metadata": {"busy": "interrupt"}}
    broker.send("a", **again)
    running = broker.take_one()
    broker.send("b", **again)
    found = broker.take()
    assert (found.interrupts, found.deliveries) == ((), ())
    (follower,) = broker.take(settled=[running.token]).deliveries
    assert (job_of(follower), follower.verdict) == ("b", "")


def test_a_message_that_was_sent_twice_does_not_interrupt_itself(broker: Broker) -> None:
    for _ in range(2):
        broker.send("a", metadata={"busy": "interrupt"})
    found = broker.take()
    assert (jobs_of(found.deliveries), found.interrupts) == (["a"], ())
    assert [one.verdict for one in broker.take(settled=[found.deliveries[0].token]).deliveries] == [
        ""
    ]


def test_who_asks_for_the_running_turn_again_is_not_told_that_it_is_busy(broker: Broker) -> None:
    again = {"idempotency_key": "k", "metadata": {"busy": "reject"}}
    for job in "abc":
        broker.send(job, **again)
    broker.send("d", metadata={"busy": "reject"})
    running, refused = broker.take().deliveries
    assert (job_of(running), running.verdict) == ("a", "")
    assert (job_of(refused), refused.verdict) == ("d", "busy")
    assert broker.jobs(settled=[running.token, refused.token]) == ["b"]


def test_however_many_ask_for_the_running_turn_again_all_get_it(broker: Broker) -> None:
    broker.rules = ScheduleRules(lane_depth=2)
    jobs = [f"{number}" for number in range(10)]
    for job in jobs:
        broker.send(job, idempotency_key="k")
    broker.send("other")
    (running, refused) = broker.take().deliveries
    assert (job_of(refused), refused.verdict) == ("other", "lane_full")
    broker.take(0, settled=[running.token, refused.token])
    assert broker.drain() == jobs[1:]


def test_those_who_ask_for_a_turn_that_kills_its_workers_do_not_kill_more(broker: Broker) -> None:
    broker.rules = ScheduleRules(attempts=2)
    for job in ("a", "b"):
        broker.send(job, idempotency_key="poison")
    broker.send("after")
    broker.send("c", idempotency_key="poison")
    for _ in range(2):
        broker.take_one()
        broker.lapse()
        _, buried = broker.schedule().reap()
    assert sorted(burial.job_id for burial in buried) == ["a", "b", "c"]
    assert broker.drain() == ["after"]
    broker.schedule().told(buried)
    letters = {f"clasper:dead:{letter}" for letter in broker.dead()}
    assert broker.left() == {"clasper:dead", *letters}


# One job, sent twice


def test_cancelling_a_job_that_was_sent_twice_reaches_the_one_that_runs(broker: Broker) -> None:
    broker.send("a")
    running = broker.take_one()
    broker.send("a")
    broker.take(0)
    assert broker.schedule().withdraw("a") == "running"
    assert broker.schedule().renew([running.token]).cancelled == ("a",)
    assert broker.jobs(settled=[running.token]) == []
    assert broker.left() == set()


def test_cancelling_a_job_that_was_sent_twice_withdraws_both(broker: Broker) -> None:
    for _ in range(2):
        broker.send("a")
    broker.send("b")
    broker.take(0)
    assert broker.schedule().withdraw("a") == "withdrawn"
    assert broker.verdicts() == {"a": "cancelled", "b": ""}
    assert broker.left() == set()


def test_the_first_of_two_is_known_again_when_the_second_is_done(broker: Broker) -> None:
    for _ in range(2):
        broker.push(message("some.task", job="a"))
    first, second = broker.take().deliveries
    broker.take(0, settled=[second.token])
    assert broker.schedule().withdraw("a") == "running"
    broker.take(0, settled=[first.token])
    assert broker.left() == set()


# Cancelled while it runs


def test_who_runs_a_cancelled_turn_hears_of_it_with_the_next_renewal(broker: Broker) -> None:
    broker.send("a")
    broker.send("b", role="other")
    tokens = [delivery.token for delivery in broker.take().deliveries]
    assert broker.schedule().renew(tokens).cancelled == ()
    broker.schedule().withdraw("a")
    renewal = broker.schedule().renew(tokens)
    assert (renewal.lost, renewal.cancelled) == ((), ("a",))


def test_who_runs_an_interrupted_turn_hears_of_it_with_the_next_renewal(broker: Broker) -> None:
    broker.send("a")
    running = broker.take_one()
    broker.send("b", metadata={"busy": "interrupt"})
    broker.take()  # by a worker that dies before it has told anybody
    assert broker.schedule().renew([running.token]).cancelled == ("a",)


# What does not run


def test_a_refusal_waits_for_no_slot_and_for_no_backlog_of_its_user(broker: Broker) -> None:
    broker.rules = ScheduleRules(tenant_concurrency=1)
    for number in range(20):
        broker.send(f"{number}", role=f"r{number}")
    running = broker.take_one()
    broker.send("refused", role="r0", metadata={"busy": "reject"})
    (refused,) = broker.take().deliveries
    assert (job_of(refused), refused.verdict) == ("refused", "busy")
    assert broker.jobs(settled=[refused.token]) == []
    assert broker.jobs(settled=[running.token]) == ["1"]


# Dead letters


def test_a_dead_letter_is_named_until_its_caller_was_told(broker: Broker) -> None:
    broker.rules = ScheduleRules(attempts=1)
    broker.send("a")
    broker.take_one()
    broker.lapse()
    _, found = broker.schedule().reap()  # whoever hears of it dies before it tells
    assert [burial.job_id for burial in found] == ["a"]
    assert broker.schedule().reap() == (0, found)
    broker.schedule().told(found)
    assert broker.schedule().reap() == (0, ())


def test_a_replayed_letters_caller_is_not_told_any_more(broker: Broker) -> None:
    broker.send("a")
    token = broker.take_one().token
    broker.schedule().bury(token, "no such task: x/y")
    (letter,) = broker.dead()
    assert broker.schedule().replay(letter) == "replayed"
    assert tell(broker) == []
    assert broker.drain() == ["a"]
    assert broker.left() == set()


# What was collected


def test_those_that_are_not_run_with_a_turn_after_all_wait_behind_it_again(broker: Broker) -> None:
    for job in "abcd":
        broker.send(job, metadata={"busy": "collect"})
    broker.send("e")
    first = broker.take_one()
    assert broker.schedule().part(first.token, ["c", "d", "unknown"]) == 2
    (again,) = broker.take(released=[first.token]).deliveries
    assert jobs_of_raws(again.collected) == ["b"]
    (group,) = broker.take(settled=[again.token]).deliveries
    assert [job_of(group), *jobs_of_raws(group.collected)] == ["c", "d"]
    assert broker.jobs(settled=[group.token]) == ["e"]


def test_a_turn_without_any_that_it_had_collected_runs_alone(broker: Broker) -> None:
    for job in "ab":
        broker.send(job, metadata={"busy": "collect"})
    first = broker.take_one()
    assert broker.schedule().part(first.token, ["b"]) == 1
    assert broker.schedule().part(first.token, ["b"]) == 0
    assert broker.schedule().part("nobody#1", ["b"]) == 0
    assert broker.jobs(settled=[first.token]) == ["b"]


def jobs_of_raws(raws: tuple[bytes, ...]) -> list[str]:
    return [str(json.loads(raw)["headers"]["id"]) for raw in raws]


# A Redis that forgets


def test_two_workers_never_hold_one_token_though_redis_lost_its_last_writes(
    real_broker: Broker,
) -> None:
    client = real_broker.client
    real_broker.send("a")
    real_broker.take(0)
    before = {key: client.dump(key) for key in client.keys("clasper:*")}
    first = real_broker.take_one()
    client.flushall()  # comes back from its file as of a moment ago, as after a power cut
    for key, value in before.items():
        client.restore(key, 0, value)
    second = real_broker.take_one()
    assert job_of(first) == job_of(second) == "a"
    assert real_broker.schedule().renew([first.token, second.token]).lost == (first.token,)


def test_a_lease_does_not_outlast_a_clock_that_was_set_back(broker: Broker) -> None:
    broker.send("a")
    token = broker.take_one().token
    broker.look_after_leases()
    hour = 3_600_000
    tag = token.rpartition("#")[0]
    broker.client.zincrby("clasper:leases", hour, tag)  # as if all had been an hour later
    broker.client.incrby("clasper:leases:pulse", hour)
    assert broker.schedule().reap() == (0, ())
    now = int(broker.client.get("clasper:leases:pulse") or 0)
    assert now < broker.client.zscore("clasper:leases", tag) <= now + 15_000
    assert int(broker.client.get("clasper:leases:hold") or 0) <= now + 15_000


def test_a_message_that_is_gone_does_not_bar_its_sessions_way(broker: Broker) -> None:
    for job in "abc":
        broker.send(job)
    running = broker.take_one()
    gone = broker.client.hget("clasper:jobs", "b").decode()
    broker.client.delete(f"clasper:message:{gone}")
    assert broker.jobs(settled=[running.token]) == ["c"]
    assert broker.schedule().withdraw("b") == "unknown"
