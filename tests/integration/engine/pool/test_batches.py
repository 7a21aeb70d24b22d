"""Outcomes that are stored together: what other tasks and monitors see of them, and outages."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from celery import group
from pool_harness import Events, Find, Notes, RedisServer, Send, StartWorker, Worker

from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def worker(start_worker: StartWorker, events: Events) -> Iterator[Worker]:
    del events  # listening before the worker starts
    with start_worker("-c", "100") as worker:
        yield worker


@pytest.fixture
def key() -> str:
    return f"note:{uuid4()}"


def test_a_group_stores_the_result_of_each_member(worker: Worker, find: Find) -> None:
    members = [worker.app.signature("probe.retry", args=[0]) for _ in range(20)]
    sent = group(members, app=worker.app).apply_async()
    assert [find(result.id).get() for result in sent.results] == [0] * 20


def test_a_chord_has_the_results_of_its_members(worker: Worker, send: Send, find: Find) -> None:
    del worker
    body, members = send("probe.start_chord", args=[5]).get()
    assert find(body).get()["value"] == [5] * 5
    assert [find(member).get() for member in members] == [5] * 5


def test_a_linked_task_gets_the_result(worker: Worker, find: Find) -> None:
    follower = worker.app.signature("probe.bridged").clone()
    follower.freeze()
    worker.app.signature("probe.retry", args=[0], link=follower).apply_async()
    assert find(follower.id).get() == 0


def test_a_monitor_that_is_told_of_success_can_read_it(
    worker: Worker, send: Send, events: Events
) -> None:
    del worker
    results = [send("probe.nothing") for _ in range(50)]
    for result in results:
        events.wait_for(result.id, "task-succeeded")
        assert result.state == "SUCCESS"


def test_one_bad_result_does_not_spoil_the_others_of_its_batch(worker: Worker, send: Send) -> None:
    del worker
    good = [send("probe.nothing") for _ in range(10)]
    bad = send("probe.unspeakable")
    good += [send("probe.nothing") for _ in range(10)]
    with pytest.raises(Exception, match="not JSON serializable"):
        bad.get()
    assert [result.get() for result in good] == [None] * 20


def test_turns_go_on_while_redis_does_not_answer_writes(
    worker: Worker, send: Send, server: RedisServer, notes: Notes, key: str
) -> None:
    del notes
    results = [send("probe.count", args=[0.5]) for _ in range(30)]
    # On a busy machine some have ended by the time that the last one's state is read.
    until(lambda: {result.state for result in results} <= {"STARTED", "SUCCESS"})
    server.client.client_pause(2000, all=False)
    server.client.get(key)  # a read is answered, so the pause is one of writes
    assert max(result.get() for result in results) <= 100
    assert {result.state for result in results} == {"SUCCESS"}
    until(lambda: worker.ask("stats")["pool"]["in-flight"] == 0, "no slot is lost")
    until(lambda: server.client.hlen("unacked") == 0, "everything is acknowledged")


def test_a_revocation_in_the_moment_of_the_start_is_kept(worker: Worker, send: Send) -> None:
    del worker
    results = [send("probe.hold", args=["early"]) for _ in range(40)]
    for result in results:
        result.revoke(terminate=True)
    until(lambda: {result.state for result in results} == {"REVOKED"})
    send("probe.echo", args=[1]).get()  # a batch later
    assert {result.state for result in results} == {"REVOKED"}
