"""How a worker with the asyncio pool ends: warm, soft, cold; and what happens to its turns."""

from __future__ import annotations

import signal
import time
from uuid import uuid4

import pytest
from pool_harness import DEADLINE, Notes, RedisServer, Send, StartWorker, until

pytestmark = pytest.mark.integration

TERM, QUIT = signal.SIGTERM, signal.SIGQUIT


@pytest.fixture
def key() -> str:
    return f"note:{uuid4()}"


def _queued(server: RedisServer, queue: str) -> int:
    return int(server.client.llen(queue))


def test_a_warm_shutdown_finishes_what_runs(
    start_worker: StartWorker, send: Send, server: RedisServer, notes: Notes, key: str
) -> None:
    with start_worker("-c", "50", queue=f"queue-{key}") as worker:
        results = [send("probe.hold", args=[key, 1.5], queue=f"queue-{key}") for _ in range(20)]
        until(lambda: len(notes(key)) == 20)
        worker.send_signal(TERM)
        assert worker.wait() == 0, worker.log
    assert [result.get() for result in results] == ["finished"] * 20
    assert _queued(server, f"queue-{key}") == 0
    assert server.client.hlen("unacked") == 0
    assert "Warning" not in worker.log.replace("SecurityWarning", "")
    assert "Traceback" not in worker.log


def test_a_warm_shutdown_still_enforces_limits(
    start_worker: StartWorker, send: Send, notes: Notes, key: str
) -> None:
    with start_worker("-c", "5", queue=f"queue-{key}") as worker:
        result = send("probe.hold", args=[key], queue=f"queue-{key}", time_limit=1.0)
        until(lambda: notes(key))
        worker.send_signal(TERM)
        assert worker.wait() == 0, worker.log
    assert result.state == "FAILURE"


def test_what_belongs_to_the_loop_is_closed_at_the_end(
    start_worker: StartWorker, send: Send, server: RedisServer, notes: Notes, key: str
) -> None:
    with start_worker("-c", "5", queue=f"queue-{key}") as worker:
        send("probe.hold", args=[key, 0.0], queue=f"queue-{key}").get()
        worker.send_signal(TERM)
        worker.wait()
        assert notes("resource-closed").count(str(worker.process.pid)) == 1


def test_a_soft_shutdown_waits_and_then_hands_the_rest_back(
    start_worker: StartWorker, send: Send, server: RedisServer, notes: Notes, key: str
) -> None:
    with start_worker("-c", "10", queue=f"queue-{key}", PROBE_SOFT_SHUTDOWN="1.5") as worker:
        short = [send("probe.hold", args=[key, 1.0], queue=f"queue-{key}") for _ in range(3)]
        long = [send("probe.hold", args=[key + "b"], queue=f"queue-{key}") for _ in range(3)]
        until(lambda: len(notes(key)) == 3 and len(notes(key + "b")) == 3)
        worker.send_signal(QUIT)
        worker.wait()
    assert [result.state for result in short] == ["SUCCESS"] * 3
    assert notes(key).count("finished") == 3
    assert notes(key + "b") == ["started"] * 3 + ["CancelledError"] * 3
    waiting = server.client.lrange(f"queue-{key}", 0, -1)
    assert {task_id for task_id in (r.id for r in long) if task_id in "".join(waiting)} == {
        result.id for result in long
    }
    assert len(waiting) == 3
    # Another worker takes them up.
    with start_worker("-c", "10", queue=f"queue-{key}"):
        until(lambda: notes(key + "b").count("started") == 6)
        for result in long:
            result.revoke(terminate=True)


@pytest.mark.parametrize("first", [None, TERM], ids=["at-once", "during-a-warm-shutdown"])
def test_a_cold_shutdown_is_quick_and_hands_everything_back(
    start_worker: StartWorker,
    send: Send,
    server: RedisServer,
    notes: Notes,
    key: str,
    first: signal.Signals | None,
) -> None:
    with start_worker("-c", "20", queue=f"queue-{key}") as worker:
        results = [send("probe.hold", args=[key], queue=f"queue-{key}") for _ in range(10)]
        until(lambda: len(notes(key)) == 10)
        if first is not None:
            worker.send_signal(first)
            until(lambda: "Warm shutdown" in worker.log)
        began = time.monotonic()
        worker.send_signal(QUIT)
        worker.wait()
        assert time.monotonic() - began < DEADLINE / 2
    assert _queued(server, f"queue-{key}") == 10, worker.log
    assert notes(key).count("CancelledError") == 10
    assert {result.state for result in results} == {"STARTED"}
    server.client.delete(f"queue-{key}")


def test_a_cold_shutdown_does_not_wait_for_a_function_that_cannot_be_stopped(
    start_worker: StartWorker, send: Send, server: RedisServer, key: str
) -> None:
    with start_worker("-c", "2", queue=f"queue-{key}") as worker:
        result = send("probe.plain", args=[DEADLINE], queue=f"queue-{key}")
        until(lambda: result.state == "STARTED")
        began = time.monotonic()
        worker.send_signal(QUIT)
        worker.wait()
        assert time.monotonic() - began < DEADLINE / 2
    assert _queued(server, f"queue-{key}") == 1
    server.client.delete(f"queue-{key}")
