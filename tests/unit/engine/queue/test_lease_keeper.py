"""The keeper of leases, with a scheduler that says what it is told to say."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from clasper_worker.engine.queue.lease_keeper import (
    LeaseKeeper,
    is_lease_token,
    keeper_of_process,
    lease_time,
)
from clasper_worker.engine.queue.leftovers import Left
from clasper_worker.engine.queue.scheduler_types import Burial, Exchanged, Renewal
from tests.unit.engine.queue.reports import Reports
from tests.waiting import until

SOON = 0.05  # a lease so short that the keeper looks every hundredth of a second
LONG = 600.0
_SECONDS = 60.0  # for another thread to go on


class ScriptedSchedule:
    """Answers as it is told: a set of lost tokens, errors to raise first, burials to report."""

    def __init__(self) -> None:
        self.refreshed: list[tuple[str, ...]] = []
        self.settled: list[tuple[str, ...]] = []
        self.given_back: list[tuple[str, str]] = []  # what else: how, and the token
        self.reaped = 0
        self.lost: set[str] = set()
        self.cancelled: tuple[str, ...] = ()
        self.errors: list[Exception] = []
        self.burials: list[Burial] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def renew(self, tokens: Iterable[str]) -> Renewal:
        asked = tuple(tokens)
        self.refreshed.append(asked)
        if self.errors:
            raise self.errors.pop(0)
        self.meanwhile()
        return Renewal(tuple(token for token in asked if token in self.lost), self.cancelled)

    def reap(self) -> tuple[int, tuple[Burial, ...]]:
        self.reaped += 1
        buried, self.burials = tuple(self.burials), []
        return 0, buried

    def exchange(
        self,
        *,
        settled: Iterable[str] = (),
        released: Iterable[str] = (),
        lost: Iterable[str] = (),
        **_: Any,
    ) -> Exchanged:
        self.settled.append(tuple(settled))
        if self.errors:
            raise self.errors.pop(0)
        self.given_back += [("released", token) for token in released]
        self.given_back += [("lost", token) for token in lost]
        return Exchanged((), (), (), more=False)

    def bury(self, token: str, reason: str) -> tuple[Burial, ...]:
        if self.errors:
            raise self.errors.pop(0)
        self.given_back.append((reason, token))
        return (Burial("letter", token, reason),)


class Told:
    """What the keeper has told the worker."""

    def __init__(self) -> None:
        self.lost: list[tuple[str, ...]] = []
        self.cancelled: list[tuple[str, ...]] = []
        self.reports = Reports()


@pytest.fixture
def schedule() -> ScriptedSchedule:
    return ScriptedSchedule()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def make(schedule: ScriptedSchedule, told: Told) -> Iterator[Callable[[float], LeaseKeeper]]:
    made: list[LeaseKeeper] = []

    def make(lease_seconds: float) -> LeaseKeeper:
        keeper = LeaseKeeper(
            schedule,  # type: ignore[arg-type]
            lease_seconds,
            on_lost=told.lost.append,
            on_cancelled=told.cancelled.append,
            reporter=told.reports,
        )
        made.append(keeper)
        return keeper

    yield make
    for keeper in made:
        keeper.stop()


Make = Callable[[float], LeaseKeeper]


def test_what_is_held_is_prolonged_again_and_again(make: Make, schedule: ScriptedSchedule) -> None:
    keeper = make(SOON)
    keeper.hold(["a#1", "b#2"], since=lease_time())
    keeper.start()
    until(lambda: schedule.refreshed.count(("a#1", "b#2")) > 3)
    assert schedule.reaped >= 3


def test_what_is_dropped_is_prolonged_no_longer(make: Make, schedule: ScriptedSchedule) -> None:
    keeper = make(SOON)
    keeper.hold(["a#1", "b#1"], since=lease_time())
    keeper.drop(["a#1", "unknown#1"])
    keeper.start()
    until(lambda: schedule.refreshed)
    assert not keeper.holds("a#1")
    assert set(schedule.refreshed) == {("b#1",)}


def test_a_keeper_without_leases_looks_for_those_of_dead_workers(
    make: Make, schedule: ScriptedSchedule, told: Told
) -> None:
    burial = Burial("letter", "job", "lost its worker (3 times)")
    schedule.burials = [burial]
    make(SOON).start()
    until(lambda: schedule.reaped > 2)
    assert schedule.refreshed == []
    assert told.reports.letters == [burial]


def test_a_lost_lease_is_reported_once(make: Make, schedule: ScriptedSchedule, told: Told) -> None:
    keeper = make(SOON)
    keeper.hold(["a#1", "b#1"], since=lease_time())
    schedule.lost = {"a#1"}
    keeper.start()
    until(lambda: schedule.refreshed.count(("b#1",)) > 2)
    assert told.lost == [("a#1",)]
    assert (keeper.holds("a#1"), keeper.holds("b#1")) == (False, True)
    assert (keeper.is_fresh("a#1"), keeper.is_fresh("b#1")) == (False, True)


def test_what_was_settled_while_redis_was_asked_is_not_lost(
    make: Make, schedule: ScriptedSchedule, told: Told
) -> None:
    keeper = make(SOON)
    keeper.hold(["a#1"], since=lease_time())
    schedule.lost = {"a#1"}
    schedule.meanwhile = lambda: keeper.drop(["a#1"])
    keeper.start()
    until(lambda: schedule.reaped > 2)
    assert told.lost == []


def test_what_came_while_redis_was_asked_is_kept(make: Make, schedule: ScriptedSchedule) -> None:
    keeper = make(SOON)
    keeper.hold(["a#1"], since=lease_time())
    schedule.meanwhile = lambda: keeper.hold(["b#1"], since=lease_time())
    keeper.start()
    until(lambda: ("a#1", "b#1") in schedule.refreshed)
    assert keeper.is_fresh("b#1")


@pytest.mark.parametrize(
    "error", [RedisConnectionError("gone"), OSError("gone"), ValueError("a fault of ours")]
)
def test_an_error_does_not_end_the_keeping(
    make: Make, schedule: ScriptedSchedule, told: Told, error: Exception
) -> None:
    keeper = make(SOON)
    keeper.hold(["a#1"], since=lease_time())
    schedule.errors = [error, error, error]
    keeper.start()
    until(lambda: len(schedule.refreshed) > 5)
    assert keeper.holds("a#1")
    assert told.lost == []


@pytest.mark.parametrize("told_of", ["lost", "cancelled", "buried"])
def test_an_error_of_who_is_told_does_not_end_the_keeping(
    schedule: ScriptedSchedule, told_of: str
) -> None:
    def fail(_: object) -> None:
        raise ValueError("a fault of ours")

    reporter = Reports()
    reporter.dead_letters = fail  # type: ignore[assignment, method-assign]
    keeper = LeaseKeeper(
        schedule,  # type: ignore[arg-type]
        SOON,
        on_lost=fail,
        on_cancelled=fail,
        reporter=reporter,
    )
    if told_of == "lost":
        schedule.lost = {"a#1"}
    elif told_of == "cancelled":
        schedule.cancelled = ("a",)
    else:
        schedule.burials = [Burial("letter", "job", "a reason")]
    keeper.hold(["a#1", "b#1"], since=lease_time())
    keeper.start()
    until(lambda: schedule.reaped > 3)
    keeper.stop()
    assert keeper.holds("b#1")


def test_a_lease_is_fresh_from_when_it_was_asked_for(make: Make) -> None:
    keeper = make(10.0)
    now = lease_time()
    keeper.hold(["new#1"], since=now)
    keeper.hold(["old#1"], since=now - 9.0)
    assert keeper.is_fresh("new#1")
    assert not keeper.is_fresh("old#1")
    assert keeper.holds("old#1")
    assert not keeper.is_fresh("unknown#1")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no such clock")
def test_a_lease_ages_while_the_machine_is_suspended(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = make(10.0)
    keeper.hold(["a#1"], since=lease_time())
    assert keeper.is_fresh("a#1")
    woken = time.clock_gettime(time.CLOCK_BOOTTIME) + 60.0
    clocks = {time.CLOCK_BOOTTIME: woken}  # CLOCK_MONOTONIC has stood still
    monkeypatch.setattr(time, "clock_gettime", lambda clock: clocks[clock])
    assert not keeper.is_fresh("a#1")


def test_a_lease_stays_fresh_only_by_answers(make: Make, schedule: ScriptedSchedule) -> None:
    keeper = make(10.0)
    keeper.hold(["a#1"], since=lease_time() - 9.0)
    schedule.errors = [RedisConnectionError("gone")]
    with pytest.raises(RedisConnectionError):
        keeper.confirm("a#1")
    assert not keeper.is_fresh("a#1")
    assert keeper.confirm("a#1")
    assert keeper.is_fresh("a#1")


def test_confirming_a_lease_that_is_lost_reports_it(
    make: Make, schedule: ScriptedSchedule, told: Told
) -> None:
    keeper = make(LONG)
    keeper.hold(["a#1", "b#1"], since=lease_time())
    schedule.lost = {"a#1"}
    assert not keeper.confirm("a#1")
    assert not keeper.confirm("a#1")
    assert schedule.refreshed == [("a#1",)]
    assert told.lost == [("a#1",)]
    assert keeper.confirm("b#1")


def test_what_a_closed_channel_left_is_taken_once(make: Make) -> None:
    keeper = make(LONG)
    keeper.leave(Left(["a#1"]))
    keeper.leave(Left(["b#1"]))
    assert keeper.take_left() == Left(["a#1", "b#1"], [], [], [])
    assert not keeper.take_left()


def test_what_a_closed_channel_left_is_settled_by_the_keeper_once_redis_answers(
    make: Make, schedule: ScriptedSchedule
) -> None:
    keeper = make(SOON)
    schedule.errors = [RedisConnectionError("gone"), RedisConnectionError("gone")]
    keeper.leave(Left(["a#1"]))
    keeper.start()
    until(lambda: schedule.reaped > 2)
    assert schedule.settled == [("a#1",)] * 3
    assert not keeper.take_left()


def test_whatever_a_closed_channel_left_is_given_back_as_what_it_is_once(
    make: Make, schedule: ScriptedSchedule, told: Told
) -> None:
    keeper = make(SOON)
    schedule.errors = [RedisConnectionError("gone")]
    keeper.leave(Left(["a#1"], ["b#1"], ["c#1"], [("d#1", "a reason")]))
    keeper.start()
    until(lambda: told.reports.letters)
    assert schedule.settled == [("a#1",)] * 2
    assert schedule.given_back == [("released", "b#1"), ("lost", "c#1"), ("a reason", "d#1")]
    assert [letter.reason for letter in told.reports.letters] == ["a reason"]
    assert not keeper.take_left()


def test_what_an_exchange_found_is_passed_on(make: Make, told: Told) -> None:
    burial = Burial("letter", "job", "not a message of Celery")
    make(LONG).report(Exchanged((), ("a", "b"), (burial,), more=False))
    assert told.reports.jobs == [("a", "b")]
    assert told.reports.letters == [burial]
    make(LONG).report(Exchanged((), (), (), more=False))
    assert len(told.reports.jobs) == len(told.reports.letters) == 1


def test_what_runs_here_and_is_cancelled_is_said_with_each_renewal(
    make: Make, schedule: ScriptedSchedule, told: Told
) -> None:
    keeper = make(SOON)
    keeper.hold(["a#1"], since=lease_time())
    schedule.cancelled = ("a",)
    keeper.start()
    until(lambda: told.cancelled.count(("a",)) > 1)
    assert keeper.holds("a#1")


def test_a_signal_handler_that_interrupts_its_own_thread_drops_and_holds(make: Make) -> None:
    keeper = make(LONG)
    keeper.hold(["a#1"], since=lease_time())
    with keeper._lock:
        keeper.drop(keeper.held())
        keeper.hold(["b#1"], since=lease_time())
    assert keeper.held() == ("b#1",)


def test_starting_twice_starts_one_thread_and_stopping_ends_it(make: Make) -> None:
    before = set(threading.enumerate())
    keeper = make(SOON)
    keeper.start()
    keeper.start()
    started = set(threading.enumerate()) - before
    assert [thread.name for thread in started] == ["clasper-leases"]
    keeper.stop()
    until(lambda: not any(thread.is_alive() for thread in started))


def test_a_keeper_that_never_started_stops(make: Make) -> None:
    make(LONG).stop()


@pytest.mark.parametrize(
    ("tag", "is_token"),
    [("a#1", True), ("a#12", True), ("a#b#3", True), ("a", False), ("a#", False), ("a#1\n", False)],
)
def test_a_lease_token_is_told_from_other_delivery_tags(tag: str, is_token: bool) -> None:
    assert is_lease_token(tag) is is_token
    assert not is_lease_token(1)  # type: ignore[arg-type]  # as other transports have


def test_many_leases_are_prolonged_in_calls_of_500_and_the_oldest_first(
    make: Make, schedule: ScriptedSchedule
) -> None:
    keeper = make(LONG)
    now = lease_time()
    for number in range(2000):
        keeper.hold([f"t{number}#1"], since=now - number / 1000)
    keeper.start()
    until(lambda: schedule.reaped)
    assert [len(tokens) for tokens in schedule.refreshed] == [500] * 4
    oldest_first = [f"t{number}#1" for number in reversed(range(2000))]
    assert [token for tokens in schedule.refreshed for token in tokens] == oldest_first


def test_a_call_that_fails_leaves_what_was_prolonged_before_it_fresh(
    make: Make, schedule: ScriptedSchedule
) -> None:
    keeper = make(10.0)
    old = lease_time() - 9.0
    keeper.hold([f"t{number}#1" for number in range(1000)], since=old)

    def fail_next() -> None:
        if len(schedule.refreshed) == 1:
            schedule.errors = [RedisConnectionError("gone")]

    schedule.meanwhile = fail_next
    keeper.start()
    until(lambda: len(schedule.refreshed) >= 4)  # again, those that were not prolonged first
    prolonged, failed, *again = schedule.refreshed[:4]
    assert set(prolonged) | set(failed) == {f"t{number}#1" for number in range(1000)}
    assert set(again[0]) == set(failed)
    until(lambda: all(keeper.is_fresh(token) for token in (*prolonged, *failed)))


def test_much_that_a_closed_channel_left_is_settled_in_calls_of_500(
    make: Make, schedule: ScriptedSchedule
) -> None:
    keeper = make(SOON)
    tokens = [f"t{number}#1" for number in range(1200)]
    keeper.leave(Left(tokens))
    schedule.errors = [RedisConnectionError("gone")]
    keeper.start()
    until(lambda: len(schedule.settled) == 4)
    assert [len(settled) for settled in schedule.settled] == [500, 500, 500, 200]
    assert [token for settled in schedule.settled[1:] for token in settled] == tokens


def test_an_older_answer_does_not_age_a_lease(make: Make, schedule: ScriptedSchedule) -> None:
    keeper = make(10.0)
    keeper.hold(["a#1"], since=lease_time() - 9.0)
    schedule.meanwhile = lambda: keeper.hold(["a#1"], since=lease_time() + 5.0)
    assert keeper.confirm("a#1")
    assert keeper._held["a#1"] > lease_time() + 4.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_no_keeper(make: Make) -> None:
    keeper = make(LONG)
    keeper.start()
    assert keeper_of_process() is keeper
    child = os.fork()
    if not child:
        os._exit(0 if keeper_of_process() is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert keeper_of_process() is keeper
