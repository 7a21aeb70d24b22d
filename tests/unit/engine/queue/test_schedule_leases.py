"""Leases that lapse, and what a worker's loss does to what it ran."""

from __future__ import annotations

import pytest

from clasper_worker.engine.queue.policy import ScheduleRules
from tests.unit.engine.queue.turns import Broker, job_of, jobs_of, message

pytestmark = pytest.mark.every_server


def tell(broker: Broker) -> list[str]:
    """Tell the callers of dead letters, as a worker does; their jobs."""
    _, buried = broker.schedule().reap()
    broker.schedule().told(buried)
    return [burial.job_id for burial in buried]


def test_a_held_lease_is_prolonged_and_none_is_lost(broker: Broker) -> None:
    broker.send("a")
    token = broker.take_one().token
    broker.client.zadd("clasper:leases", {token.rpartition("#")[0]: 1})
    assert broker.schedule().refresh([token]) == ()
    broker.look_after_leases()
    assert broker.schedule().reap() == (0, ())


def test_a_lapsed_turn_runs_again_before_its_session_goes_on(broker: Broker) -> None:
    broker.send("a")
    broker.send("b")
    first = broker.take_one()
    broker.lapse()
    assert broker.schedule().reap() == (1, ())
    (again,) = broker.take().deliveries
    assert (job_of(again), again.lapses, again.is_redelivered) == ("a", 1, True)
    assert broker.schedule().refresh([first.token]) == (first.token,)
    assert broker.jobs(settled=[first.token]) == []
    assert broker.jobs(settled=[again.token]) == ["b"]


def test_a_lapse_gives_the_users_slot_back(broker: Broker) -> None:
    broker.rules = ScheduleRules(tenant_concurrency=1)
    broker.send("a", role="one")
    broker.send("b", role="two")
    broker.take_one()
    broker.lapse()
    broker.schedule().reap()
    assert broker.drain() == ["a", "b"]
    assert broker.left() == set()


def test_lapses_are_first_looked_for_a_leases_time_after_nobody_did(broker: Broker) -> None:
    broker.send("a")
    broker.take_one()
    broker.client.zadd(
        "clasper:leases", dict.fromkeys(broker.client.zrange("clasper:leases", 0, -1), 1)
    )
    assert broker.schedule().reap() == (0, ())  # nobody had looked before
    assert broker.schedule().reap() == (0, ())
    broker.client.set("clasper:leases:hold", 1)  # the time is over
    assert broker.schedule().reap() == (1, ())


def test_a_gap_in_looking_starts_that_time_anew(broker: Broker) -> None:
    broker.send("a")
    broker.take_one()
    broker.lapse()
    pulse = int(broker.client.get("clasper:leases:pulse") or 0)
    broker.client.set("clasper:leases:pulse", pulse - 60_000)
    assert broker.schedule().reap() == (0, ())


def test_a_message_that_its_workers_do_not_survive_becomes_a_dead_letter(broker: Broker) -> None:
    broker.rules = ScheduleRules(attempts=3)
    broker.send("poison")
    broker.send("after")
    for lapses in (0, 1):
        assert broker.take_one().lapses == lapses
        broker.lapse()
        assert broker.schedule().reap() == (1, ())
    token = broker.take_one().token
    broker.lapse()
    lapsed, (burial,) = broker.schedule().reap()
    assert (lapsed, burial.job_id) == (1, "poison")
    (letter,) = broker.dead().values()
    assert letter["reason"] == burial.reason == "lost its worker (3 times)"
    assert (letter["job"], letter["user"], letter["attempts"]) == ("poison", "u", "3")
    assert broker.schedule().refresh([token]) == (token,)
    assert broker.drain() == ["after"]


def test_a_delivery_whose_process_was_lost_comes_again_at_once_and_in_the_end_is_a_dead_letter(
    broker: Broker,
) -> None:
    broker.rules = ScheduleRules(attempts=2)
    broker.send("poison")
    broker.send("beside", role="other")
    first, beside = broker.take().deliveries
    assert broker.take(0, lost=[first.token]).buried == ()
    second = broker.take_one()
    assert (second.lapses, second.is_redelivered) == (1, True)
    assert broker.take(0, lost=[first.token]).buried == ()  # void: another delivery is out
    (burial,) = broker.take(0, lost=[second.token]).buried
    assert (burial.job_id, burial.reason) == ("poison", "lost its worker (2 times)")
    assert broker.schedule().refresh([beside.token]) == ()  # nobody else is blamed


def test_a_release_is_no_lapse(broker: Broker) -> None:
    broker.rules = ScheduleRules(attempts=2)
    broker.send("a")
    for _ in range(5):
        broker.take(0, released=[broker.take_one().token])
    assert broker.take_one().lapses == 0


def test_a_worker_can_bury_what_it_has_and_its_session_goes_on(broker: Broker) -> None:
    broker.send("a")
    broker.send("b")
    token = broker.take_one().token
    assert broker.schedule().bury(token, "no such task: x")
    assert not broker.schedule().bury(token, "again")
    ((letter, about),) = broker.dead().items()
    assert letter == token.rpartition("#")[0]
    assert (about["reason"], about["job"], about["queue"]) == ("no such task: x", "a", "clasper")
    assert broker.drain() == ["b"]
    tell(broker)
    assert broker.left() == {"clasper:dead", f"clasper:dead:{letter}"}


def test_a_group_is_buried_one_by_one(broker: Broker) -> None:
    for job in "abc":
        broker.send(job, metadata={"busy": "collect"})
    broker.send("d")
    broker.schedule().bury(broker.take_one().token, "poison")
    assert sorted(letter["job"] for letter in broker.dead().values()) == ["a", "b", "c"]
    assert broker.drain() == ["d"]


def test_the_oldest_dead_letters_go_when_there_are_too_many(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clasper_worker.engine.queue.policy._DEAD_LETTERS", 2)
    for number in range(4):
        broker.push(b"junk %d" % number)
        (burial,) = broker.take().buried
        broker.client.zadd("clasper:dead", {burial.letter_id: number})  # as if an hour apart
    assert sorted(letter["raw"] for letter in broker.dead().values()) == ["junk 2", "junk 3"]
    assert len(broker.left()) == 3


@pytest.mark.parametrize("lost", [["leases"], ["leases", "leases:pulse", "leases:hold"]])
def test_leases_that_were_flushed_are_found_again(broker: Broker, lost: list[str]) -> None:
    broker.send("a", role="held")
    broker.send("b", role="lost")
    held, gone = broker.take().deliveries
    broker.look_after_leases()
    broker.client.delete(*(f"clasper:{key}" for key in lost))
    assert broker.schedule().reap() == (0, ())
    assert broker.schedule().refresh([held.token, gone.token]) == ()
    broker.lapse(gone.token)
    assert broker.schedule().reap() == (1, ())
    assert broker.jobs() == ["b"]


def test_a_holder_brings_back_its_lease_alone_after_a_flush(broker: Broker) -> None:
    broker.send("a", role="held")
    broker.send("b", role="lost")
    held, _ = broker.take().deliveries
    broker.client.delete("clasper:leases")
    broker.schedule().refresh([held.token])
    broker.look_after_leases()
    broker.schedule().reap()
    assert broker.client.zcard("clasper:leases") == 2


def test_what_is_left_of_a_message_that_is_gone_is_swept_away(broker: Broker) -> None:
    broker.push(message("some.task", job="a"))
    token = broker.take_one().token
    broker.client.delete(f"clasper:message:{token.rpartition('#')[0]}")
    broker.lapse()
    broker.schedule().reap()
    assert broker.left() == {"clasper:jobs"}


def test_of_messages_that_lost_many_workers_one_runs_at_a_time(broker: Broker) -> None:
    broker.rules = ScheduleRules(attempts=3)
    for name in ("poison", "innocent", "other"):
        broker.send(name, role=name)
    assert len(broker.take().deliveries) == 3
    broker.lapse()
    assert broker.schedule().reap() == (3, ())
    suspect = broker.take_one()
    broker.send("new", role="new")
    assert broker.jobs() == ["new"]  # what is not suspected runs beside it
    (second,) = broker.take(settled=[suspect.token]).deliveries
    assert second.lapses == 1
    broker.lapse()
    broker.schedule().reap()
    assert sorted(broker.drain()) == sorted(
        {"poison", "innocent", "other", "new"} - {job_of(suspect)}
    )
    assert broker.left() == set()


def test_of_what_was_lost_with_a_worker_that_is_blamed_which_was_blamed_most(
    broker: Broker,
) -> None:
    broker.rules = ScheduleRules(attempts=10)  # so that all may run side by side
    broker.send("poison", role="poison")
    for neighbours in ("ab", "cd", "ef"):
        for name in neighbours:
            broker.send(name, role=name)
        lost = broker.take().deliveries
        assert "poison" in jobs_of(lost)
        broker.lapse()
        assert broker.schedule().reap()[0] == len(lost)
    blamed = {job_of(delivery): delivery.lapses for delivery in broker.take().deliveries}
    # All shared the first blame; those that came later had none of it.
    assert blamed == {"poison": 3, "a": 3, "b": 3, "c": 0, "d": 0, "e": 0, "f": 0}


def test_workers_that_are_lost_together_are_told_apart(broker: Broker) -> None:
    broker.send("poison", role="poison")
    broker.take()
    broker.lapse()
    broker.schedule().reap()
    broker.send("other", role="other")
    assert broker.take_one().lapses == 1
    broker.take_one()
    broker.lapse()
    broker.schedule().reap()
    assert {job_of(found): found.lapses for found in broker.take().deliveries} == {
        "poison": 2,
        "other": 1,
    }


def test_what_a_lost_worker_took_last_lapses_last_and_is_compared_with_the_rest(
    broker: Broker,
) -> None:
    broker.send("poison", role="poison")
    broker.take()
    broker.lapse()
    broker.schedule().reap()
    broker.send("late", role="late")
    worker = broker.schedule()
    (first,) = worker.exchange(free=1).deliveries
    (last,) = worker.exchange(free=1).deliveries
    assert (job_of(first), job_of(last)) == ("poison", "late")
    for token in (first.token, last.token):
        broker.lapse(token)
        broker.schedule().reap()
    assert {job_of(found): found.lapses for found in broker.take().deliveries} == {
        "poison": 2,
        "late": 0,
    }


def test_a_suspect_that_waits_can_be_withdrawn(broker: Broker) -> None:
    broker.rules = ScheduleRules(attempts=3)
    for name in ("one", "two"):
        broker.send(name, role=name)
    broker.take()
    broker.lapse()
    broker.schedule().reap()
    running = broker.take_one()
    (waiting,) = {"one", "two"} - {job_of(running)}
    assert broker.schedule().withdraw(waiting) == "withdrawn"
    assert broker.verdicts(settled=[running.token]) == {waiting: "cancelled"}
    assert broker.left() <= {"clasper:cancelled"}
