"""What happens to turns and slots when Redis goes away and comes back."""

from __future__ import annotations

import pytest
from pool_harness import Notes, RedisServer, Send, StartWorker

from tests.waiting import until

pytestmark = pytest.mark.integration


def test_turns_go_on_while_the_broker_is_away_and_no_slot_is_lost(
    start_worker: StartWorker, send: Send, server: RedisServer
) -> None:
    with start_worker("-c", "5") as worker:
        running = [send("probe.count", args=[2.0]) for _ in range(5)]
        until(lambda: {task.state for task in running} == {"STARTED"}, "all run")
        server.kill()
        server.start()
        assert [task.get() <= 5 for task in running] == [True] * 5
        # The pool still has all its slots, and the worker takes new work.
        met = [send("probe.meet", args=["after", 5]) for _ in range(5)]
        assert [task.get() for task in met] == [5] * 5
        until(lambda: server.client.hlen("unacked") == 0, "everything is acknowledged")
        assert server.client.llen("celery") == 0
    assert worker.process.returncode == 0


def test_outcomes_of_an_outage_are_stored_after_it(
    start_worker: StartWorker, send: Send, server: RedisServer
) -> None:
    with start_worker("-c", "30", queue="outage") as worker:
        results = [send("probe.count", args=[1.0], queue="outage") for _ in range(30)]
        until(lambda: {result.state for result in results} == {"STARTED"})
        server.kill()
        try:
            until(lambda: "waiting to store" in worker.log, "outcomes cannot be stored")
        finally:
            server.start()
        assert max(result.get() for result in results) == 30
        met = [send("probe.meet", args=["slots", 30], queue="outage") for _ in range(30)]
        assert [task.get() for task in met] == [30] * 30  # no slot is lost
        until(lambda: server.client.hlen("unacked") == 0, "everything is acknowledged")


def _lose_connections(server: RedisServer) -> None:
    """Close the worker's connections to the broker, which redelivers at once."""
    for client in server.client.client_list():
        if client["name"] == "probe-broker":
            server.client.client_kill_filter(_id=client["id"])


def test_a_redelivery_of_what_still_runs_waits_for_its_end(
    start_worker: StartWorker, send: Send, server: RedisServer, notes: Notes
) -> None:
    with start_worker("-c", "5", queue="again") as worker:
        tasks = [send("probe.hold", args=[f"again-{n}", 2.0], queue="again") for n in range(3)]
        until(lambda: all(notes(f"again-{n}") for n in range(3)), "all run")
        _lose_connections(server)
        until(lambda: worker.log.count("] received") == 6, "they were redelivered")
        for number, task in enumerate(tasks):
            until(lambda number=number: len(notes(f"again-{number}")) == 4)  # type: ignore[misc]
            assert notes(f"again-{number}") == ["started", "finished"] * 2
            assert task.state == "SUCCESS"
        until(lambda: server.client.hlen("unacked") == 0, "everything is acknowledged")


def test_celery_may_cancel_what_runs_when_the_connection_is_lost(
    start_worker: StartWorker, send: Send, server: RedisServer, notes: Notes
) -> None:
    with start_worker("-c", "5", queue="cancel", PROBE_CANCEL_ON_LOSS="1") as worker:
        task = send("probe.hold", args=["cancelled"], queue="cancel")
        until(lambda: notes("cancelled"), "it runs")
        _lose_connections(server)
        until(lambda: notes("cancelled")[1:] == ["CancelledError", "started"], "it runs again")
        assert worker.ask("stats")["pool"]["in-flight"] == 1
        task.revoke(terminate=True)
        until(lambda: task.state == "REVOKED")
