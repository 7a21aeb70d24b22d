"""Cancelling turns and jobs that are queued, wait in a lane, run, have ended, or never were."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from clasper_worker.cli import cli
from clasper_worker.config.names import QUEUES
from clasper_worker.config.settings import get_settings
from clasper_worker.engine.queue.cancel import CancelledJob, Canceller, take_from_queues
from clasper_worker.engine.queue.dead_letters import DeadLetters
from clasper_worker.engine.queue.identity import turn_id_for
from clasper_worker.engine.queue.revocations import RevokedJobs
from clasper_worker.engine.queue.scheduler import open_schedule
from clasper_worker.engine.queue.scheduler_types import Delivery
from tests.integration.engine.queue.conftest import Site

pytestmark = [
    pytest.mark.integration,
    # Celery's result backend, with redis-py 8.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]


@pytest.fixture
def canceller(site: Site) -> Iterator[Canceller]:
    made = Canceller(site.client.app, open_schedule(site.settings), QUEUES)
    yield made
    made.close()


def jobs_of(deliveries: tuple[Delivery, ...]) -> list[str]:
    return [json.loads(delivery.raw)["headers"]["id"] for delivery in deliveries]


def test_a_turn_that_is_queued_never_runs(site: Site, canceller: Canceller) -> None:
    for job in "abc":
        site.send(job)
    assert canceller.cancel_turn("b", wait=0) == (CancelledJob("b", "waiting", "REVOKED"),)
    verdicts = {jobs_of((one,))[0]: one.verdict for one in site.take()}
    assert verdicts == {"a": "", "b": "cancelled"}


def test_a_turn_that_waits_in_its_lane_never_runs(site: Site, canceller: Canceller) -> None:
    for job in "abc":
        site.send(job)
    running = site.take_one()
    assert canceller.cancel_turn("b", wait=0) == (CancelledJob("b", "waiting", "REVOKED"),)
    cancelled, following = site.take(settled=[running.token])
    assert (jobs_of((cancelled,)), cancelled.verdict) == (["b"], "cancelled")
    assert (jobs_of((following,)), following.verdict) == (["c"], "")


def test_a_turn_that_has_ended_keeps_its_result(site: Site, canceller: Canceller) -> None:
    site.send("a", idempotency_key="k")
    turn = turn_id_for("u1", "k", "a")
    delivery = site.take_one()
    site.end("a")
    site.take(0, settled=[delivery.token])
    assert canceller.cancel_turn(turn, wait=0) == (CancelledJob("a", "ended", "SUCCESS"),)
    site.send("b", idempotency_key="k")  # gets the stored result
    assert site.take_one().verdict == ""


def test_one_that_ended_without_a_key_keeps_its_result_and_its_id_may_be_used(
    site: Site, canceller: Canceller
) -> None:
    site.end("a")
    assert canceller.cancel_turn("a", wait=0) == (CancelledJob("a", "ended", "SUCCESS"),)
    site.send("a")
    assert site.take_one().verdict == ""


def test_all_jobs_of_a_turn_are_cancelled_wherever_they_are(
    site: Site, canceller: Canceller
) -> None:
    for job in ("running", "waiting"):
        site.send(job, idempotency_key="k")
    site.take_one()
    site.send("queued", idempotency_key="k")
    site.send("another", idempotency_key="other")
    turn = turn_id_for("u1", "k", "")
    ends = {end.job_id: end for end in canceller.cancel_turn(turn, wait=0)}
    assert ends["waiting"] == CancelledJob("waiting", "waiting", "REVOKED")
    assert ends["queued"] == CancelledJob("queued", "waiting", "REVOKED")
    assert (ends["running"].found, ends["running"].has_ended) == ("running", False)
    assert set(ends) == {"running", "waiting", "queued"}


def test_of_a_running_turn_the_end_is_waited_for(site: Site, canceller: Canceller) -> None:
    site.send("a")
    site.take_one()
    asked: list[Any] = []

    def revoke(jobs: Any, **how: Any) -> None:
        asked.append((jobs, how))
        site.end("a", "SUCCESS")  # it was faster

    site.client.app.control.revoke = revoke
    assert canceller.cancel_turn("a", wait=60) == (CancelledJob("a", "running", "SUCCESS"),)
    assert asked == [(["a"], {"terminate": True})]


def test_a_cancelled_turn_whose_worker_dies_does_not_run_again(
    site: Site, canceller: Canceller
) -> None:
    site.send("a")
    delivery = site.take_one()
    canceller.cancel_turn("a", wait=0)
    site.take(0, released=[delivery.token])
    assert site.take_one().verdict == "cancelled"


def test_an_interrupted_turn_whose_worker_dies_does_not_run_again(site: Site) -> None:
    site.send("a")
    delivery = site.take_one()
    site.send("b", metadata={"busy": "interrupt"})
    found = site.schedule.exchange(free=1)
    assert found.interrupts == ("a",)
    (again,) = site.take(1, released=[delivery.token])
    assert (jobs_of((again,)), again.verdict) == (["a"], "cancelled")


def test_cancelling_a_job_leaves_the_other_jobs_of_its_turn(
    site: Site, canceller: Canceller
) -> None:
    for job in ("a", "b", "c"):
        site.send(job, idempotency_key="k")
    running = site.take_one()
    assert canceller.cancel_job("b", wait=0).state == "REVOKED"
    cancelled, following = site.take(settled=[running.token])
    assert (jobs_of((cancelled,)), cancelled.verdict) == (["b"], "cancelled")
    assert (jobs_of((following,)), following.verdict) == (["c"], "")


@pytest.mark.parametrize("name", ["a", "turn"])
def test_what_comes_after_it_was_cancelled_is_delivered_as_cancelled_outside_its_lane(
    site: Site, canceller: Canceller, name: str
) -> None:
    turn = turn_id_for("u1", "k", "a")
    (end,) = canceller.cancel_turn(turn if name == "turn" else "a", wait=0)
    assert (end.found, end.has_ended) == ("unknown", False)
    site.send("before")
    site.send("a", idempotency_key="k")
    verdicts = {jobs_of((one,))[0]: one.verdict for one in site.take()}
    assert verdicts == {"before": "", "a": "cancelled"}


def test_a_dead_letter_stays_one(site: Site, canceller: Canceller) -> None:
    site.send("a")
    delivery = site.take_one()
    site.schedule.doom(delivery.token, "reason")
    site.end("a", "FAILURE")
    site.take(0, settled=[delivery.token])
    assert canceller.cancel_turn("a", wait=0) == (CancelledJob("a", "ended", "FAILURE"),)
    assert len(DeadLetters(site.schedule, site.client.app).ids()) == 1


def test_watchers_are_told_of_what_never_came(site: Site, canceller: Canceller) -> None:
    with site.redis.pubsub(ignore_subscribe_messages=True) as events:  # type: ignore[no-untyped-call]
        events.psubscribe("*celeryev/task.revoked")
        canceller.announce_unseen("a")
        told = None
        deadline = time.monotonic() + 10
        while told is None and time.monotonic() < deadline:
            told = events.get_message(timeout=1)
    assert told is not None
    event = json.loads(base64.b64decode(json.loads(told["data"])["body"]))
    assert (event["type"], event["uuid"]) == ("task-revoked", "a")


@pytest.mark.parametrize("is_taken_in", [True, False])
def test_one_whose_canceller_dies_before_it_has_told_is_told_by_a_worker(
    site: Site, canceller: Canceller, monkeypatch: pytest.MonkeyPatch, is_taken_in: bool
) -> None:
    site.send("a")
    if is_taken_in:
        site.take(0)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(site.client.app.backend, "mark_as_revoked", die)
    with pytest.raises(KeyboardInterrupt):
        canceller.cancel_job("a", wait=0)
    assert site.take_one().verdict == "cancelled"


def test_without_redis_as_the_broker_the_workers_are_asked(site: Site) -> None:
    asked: list[list[str]] = []
    site.client.app.control.revoke = lambda jobs, **_: asked.append(jobs)
    canceller = Canceller(site.client.app, None, QUEUES)
    assert canceller.cancel_turn("a", wait=0) == (CancelledJob("a", "unknown", "PENDING"),)
    assert asked == [["a"]]
    site.end("c", "STARTED")
    assert canceller.cancel_job("c", wait=0) == CancelledJob("c", "running", "STARTED")
    site.end("b")
    assert canceller.cancel_job("b", wait=0) == CancelledJob("b", "ended", "SUCCESS")


# In the queues' own lists


def test_messages_are_found_by_job_and_by_turn_behind_many_others(site: Site) -> None:
    site.send("a", idempotency_key="k")
    site.send("b")
    for number in range(450):
        site.redis.lpush("clasper", f'{{"headers": {{"id": "{number}"}}}}')
    site.redis.lpush("clasper", b"\xff", "[]", "null", '{"headers": {"id": 1}}')
    names = {turn_id_for("u1", "k", ""), "b"}
    gone = {"a": "leaving", "b": "leaving"}
    site.schedule.withdraw_all(names, remember=True)
    assert take_from_queues(site.schedule, QUEUES, names) == gone
    assert take_from_queues(site.schedule, QUEUES, names) == {}
    assert site.redis.llen("clasper") == 454


def test_what_nobody_knows_of_is_not_searched_for_among_all_that_waits(
    site: Site, canceller: Canceller
) -> None:
    site.send("behind")
    raw = site.redis.lindex("clasper", 0)
    for _ in range(20):
        site.redis.lpush("clasper", *[raw.replace(b"behind", b"before")] * 1_000)
    site.redis.config_resetstat()
    (end,) = canceller.cancel_turn("nobodys", wait=0)
    looked = site.redis.info("commandstats")["cmdstat_lrange"]["calls"]
    assert end == CancelledJob("nobodys", "unknown", "PENDING")
    site.redis.config_resetstat()
    assert canceller.cancel_turn("behind", wait=0, thoroughly=True)[0].found == "waiting"
    searched = site.redis.info("commandstats")["cmdstat_lrange"]["calls"]
    assert looked * 20 < searched * 200  # messages looked at: a part of them alone


def test_what_a_glance_misses_does_not_run(site: Site, canceller: Canceller) -> None:
    site.send("a")
    raw = site.redis.rpop("clasper")
    canceller.cancel_job("a", wait=0)
    site.redis.lpush("clasper", raw)
    assert site.take_one().verdict == "cancelled"


def test_messages_of_any_priority_are_found(site: Site) -> None:
    site.send("a")
    raw = site.redis.rpop("clasper")
    site.redis.lpush("clasper\x06\x169", raw)
    site.schedule.withdraw_all(["a"], remember=True)
    assert take_from_queues(site.schedule, QUEUES, ["a"]) == {"a": "leaving"}
    assert site.take_one().verdict == "cancelled"


# Celery's own revoke


def test_a_revoked_job_that_waits_is_withdrawn_once(site: Site) -> None:
    for job in "abc":
        site.send(job)
    running = site.take_one()
    workers = RevokedJobs(), RevokedJobs()
    revoked = dict.fromkeys(["b", "a", "elsewhere"], 0.0)
    found = [worker.withdraw(site.schedule, revoked, 0.0) for worker in workers]
    assert sorted(found) == [(), ("b",)]
    assert site.schedule.refresh([running.token]) == ()
    verdicts = {jobs_of((one,))[0]: one.verdict for one in site.take(settled=[running.token])}
    assert verdicts == {"b": "cancelled", "c": ""}


def test_a_job_that_comes_into_its_lane_after_it_was_revoked_is_withdrawn_then(site: Site) -> None:
    jobs = RevokedJobs()
    assert jobs.withdraw(site.schedule, {"a": 0.0}, 0.0) == ()
    site.send("a")
    site.take(0)
    assert jobs.withdraw(site.schedule, {"a": 0.0}, 1.0) == ("a",)


def test_revoked_jobs_of_others_are_not_remembered(site: Site) -> None:
    RevokedJobs().withdraw(site.schedule, {"a": 0.0}, 0.0)
    site.send("a")
    assert site.take_one().verdict == ""


def test_redis_is_not_asked_for_ever_about_jobs_that_it_does_not_know(site: Site) -> None:
    jobs = RevokedJobs()
    jobs.withdraw(site.schedule, {"a": 0.0}, 0.0)
    jobs.withdraw(site.schedule, {"a": 0.0}, 1000.0)
    before = site.redis.info("stats")["total_commands_processed"]
    jobs.withdraw(site.schedule, {"a": 0.0}, 1001.0)
    assert site.redis.info("stats")["total_commands_processed"] == before + 1


# The command


@pytest.fixture
def run(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    monkeypatch.setenv("CELERY_BROKER_URL", site.settings.celery_broker_url)
    get_settings.cache_clear()
    yield lambda *arguments: CliRunner().invoke(cli, ["cancel", *arguments])
    get_settings.cache_clear()


def test_the_command_tells_what_became_of_each_job(site: Site, run: Callable[..., Any]) -> None:
    site.send("a")
    site.end("b")
    stopped, ended = run("a"), run("b")
    assert (stopped.exit_code, ended.exit_code) == (0, 0)
    assert "REVOKED" in stopped.output
    assert "SUCCESS" in ended.output
    assert json.loads(run("a", "--json").output) == {
        "turn_id": "a",
        "ended": True,
        "jobs": [{"job_id": "a", "found": "ended", "state": "REVOKED"}],
    }


def test_the_command_fails_for_what_is_unknown_or_goes_on(
    site: Site, run: Callable[..., Any]
) -> None:
    unknown = run("nobodys")
    assert (unknown.exit_code, "not known" in unknown.output) == (1, True)
    site.send("a")
    site.take_one()
    goes_on = run("a", "--wait", "0")
    assert (goes_on.exit_code, "asked to stop" in goes_on.output) == (1, True)
