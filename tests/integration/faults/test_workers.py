"""Real workers that are killed, frozen, cut off, or sent what they cannot read."""

from __future__ import annotations

import json
import signal

import pytest

from clasper_worker.engine.queue.policy import ScheduleRules
from clasper_worker.engine.queue.scheduler import Schedule
from clasper_worker.errors import DeadLetterError
from tests.integration.faults.conftest import Site
from tests.unit.engine.queue.turns import message
from tests.waiting import until

pytestmark = pytest.mark.integration


def test_another_worker_takes_over_from_one_that_was_killed(site: Site) -> None:
    with site.worker("first", "-c", "4") as first:
        turns = [site.send(f"{role}{n}", role, message="go") for n in range(3) for role in "abc"]
        until(lambda: len(site.notes) == 3, "one of each session runs")
        with site.worker("second", "-c", "4") as second:
            first.kill()
            first.wait()
            until(lambda: len(site.notes) == 6, "they run again")
            site.let_go("go")
            assert {turn.get(timeout=60) for turn in turns} == {second.pid}
            until(lambda: not site.left(), "all is settled")
    for role in "abc":
        ended = [job for did, job, _ in site.notes if did == "end" and job[0] == role]
        assert ended == [f"{role}{n}" for n in range(3)]


def test_a_frozen_worker_stops_its_turn_when_another_has_taken_over(site: Site) -> None:
    with site.worker("first") as first:
        turn = site.send("a", message="go")
        until(lambda: site.noted("start", "a"), "it runs")
        first.send_signal(signal.SIGSTOP)
        with site.worker("second") as second:
            until(lambda: len(site.noted("start", "a")) == 2, "it was taken over")
            first.send_signal(signal.SIGCONT)
            until(lambda: site.noted("cancel", "a"), "the frozen one stops")
            assert turn.state == "STARTED"
            site.let_go("go")
            assert turn.get(timeout=60) == second.pid
            until(lambda: not site.left(), "it is settled")
            # The first still works, and has acknowledged nothing that was not its own.
            again = [site.send(f"again{n}", f"r{n}") for n in range(4)]
            assert {one.get(timeout=60) for one in again} <= {first.pid, second.pid}
        assert site.noted("cancel", "a") == [first.pid]
        assert site.noted("end", "a") == [second.pid]


@pytest.mark.parametrize("ends", ["while Redis is away", "after that"])
def test_a_turn_that_outlives_a_crash_of_redis_runs_once_and_is_settled(
    site: Site, ends: str
) -> None:
    with site.worker("worker") as worker:
        turn = site.send("a", message="go")
        behind = site.send("b")
        until(lambda: turn.state == "STARTED", "it runs")
        site.server.kill()
        if ends == "while Redis is away":
            site.let_go("go")
            until(lambda: site.noted("end", "a"), "it ends")
        site.server.restart()
        site.let_go("go")
        assert turn.get(timeout=60) == worker.pid
        assert behind.get(timeout=60) == worker.pid
        until(lambda: not site.left(), "all is settled")
    assert [(did, job) for did, job, _ in site.notes] == [
        ("start", "a"),
        ("end", "a"),
        ("start", "b"),
        ("end", "b"),
    ]


@pytest.mark.parametrize("pool", ["asyncio", "prefork"])
def test_a_running_turn_is_stopped_though_the_broadcast_of_it_was_lost(
    site: Site, pool: str
) -> None:
    with site.worker("worker", *(("-P", "prefork", "-c", "2") if pool == "prefork" else ())):
        turn = site.send("a", message="never")
        behind = site.send("b")
        until(lambda: turn.state == "STARTED", "it runs")
        schedule = Schedule(site.client, ScheduleRules(lease_seconds=2.0))
        assert schedule.withdraw("a") == "running"  # and whoever asked for it dies
        until(lambda: turn.state == "REVOKED", "it is stopped")
        behind.get(timeout=60)
        until(lambda: site.left() <= {b"clasper:cancelled"}, "all is settled")
    assert not site.noted("end", "a")


def test_the_caller_of_a_dead_letter_is_told_though_who_buried_it_died(site: Site) -> None:
    queue = [("clasper", ["clasper"])]
    schedule = Schedule(site.client, ScheduleRules(lease_seconds=2.0, attempts=1), queue)
    turn = site.send("a")
    (delivery,) = schedule.exchange(free=1).deliveries
    assert schedule.bury(delivery.token, "a reason")
    assert turn.state == "PENDING"
    with site.worker("worker"):
        error = turn.get(timeout=60, propagate=False)
        assert type(error).__name__ == DeadLetterError.__name__
        until(lambda: not site.client.exists("clasper:untold"), "it is noted")


def test_a_worker_survives_a_redis_that_is_full(site: Site) -> None:
    with site.worker("worker") as worker:
        turn = site.send("a", message="go")
        until(lambda: turn.state == "STARTED", "it runs")
        site.client.config_set("maxmemory", "1")
        until(
            lambda: "leases are not prolonged: OOM" in site.log_of("worker").read_text(),
            "the worker has met it",
        )
        site.client.config_set("maxmemory", "0")
        site.let_go("go")
        assert turn.get(timeout=60) == worker.pid
        assert site.send("b").get(timeout=60) == worker.pid
        until(lambda: not site.left(), "all is settled")
    assert [(did, job) for did, job, _ in site.notes[:2]] == [("start", "a"), ("end", "a")]
    assert worker.returncode == 0


def test_what_no_worker_can_run_becomes_dead_letters_and_the_worker_goes_on(site: Site) -> None:
    with site.worker("worker") as worker:
        unknown = site.app.send_task("no.such.task", queue="clasper", task_id="unknown")
        pickled = json.loads(message(job="pickled", user_id="u"))
        pickled["content-type"] = "application/x-python-serialize"
        bad = {
            "eta": message(job="eta", user_id="u", headers={"eta": "never"}),
            "limits": message(job="limits", user_id="u", headers={"timelimit": 5}),
            "expiry": message(job="expiry", user_id="u", headers={"expires": {}}),
            "a list": message(job="a list", user_id="u", headers={"task": ["clasper.send"]}),
            "stamps": message(job="stamps", user_id="u", headers={"stamped_headers": 5}),
            "nameless": message(task="", job="nameless"),
            "body": message(job="body", body="no JSON"),
            "pickled": json.dumps(pickled).encode(),
            "junk": b"junk",
        }
        for raw in bad.values():
            site.client.lpush("clasper", raw)
        until(lambda: site.client.zcard("clasper:dead") == len(bad) + 1, "all are buried")
        error = unknown.get(timeout=60, propagate=False)
        assert type(error).__name__ == DeadLetterError.__name__
        assert site.send("good").get(timeout=60) == worker.pid
        letters = {
            site.client.hget(b"clasper:dead:" + letter, "job").decode()
            for letter in site.client.zrange("clasper:dead", 0, -1)
        }
        assert letters == {"unknown", *bad} - {"junk"} | {""}
        for job in (*letters - {"", "unknown"},):
            assert site.app.AsyncResult(job).state == "FAILURE"
        until(lambda: all(key.startswith(b"clasper:dead") for key in site.left()), "no more")


@pytest.mark.parametrize("pool", ["threads", "solo", "prefork"])
def test_turns_of_a_session_run_one_at_a_time_under_any_pool(site: Site, pool: str) -> None:
    with site.worker("worker", "-P", pool, "-c", "3"):
        turns = [site.send(f"{role}{n}", role) for n in range(4) for role in "ab"]
        for turn in turns:
            turn.get(timeout=60)
        until(lambda: not site.left(), "all is settled")
    for role in "ab":
        noted = [(did, job) for did, job, _ in site.notes if job[0] == role]
        assert noted == [(did, f"{role}{n}") for n in range(4) for did in ("start", "end")]
