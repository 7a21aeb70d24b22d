"""What happens to turns and slots when Redis goes away and comes back."""

from __future__ import annotations

import pytest
from pool_harness import RedisServer, Send, StartWorker, until

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
        until(lambda: worker.ask("stats")["pool"]["in-flight"] == 0)
        until(lambda: server.client.hlen("unacked") == 0, "everything is acknowledged")
        assert server.client.llen("celery") == 0
    assert worker.process.returncode == 0
