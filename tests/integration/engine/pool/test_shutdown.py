"""How a worker with the asyncio pool ends: warm, soft, cold; and what happens to its turns."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from uuid import uuid4

import pytest
from pool_harness import DEADLINE, Notes, RedisServer, Send, Sent, StartWorker, Worker

from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def key() -> str:
    return f"note:{uuid4()}"


@dataclass(frozen=True)
class Aftermath:
    """What a warm shutdown left."""

    worker: Worker
    exit_code: int
    held: list[Sent]
    limited: Sent


@pytest.fixture(scope="module")
def after_warm(start_worker: StartWorker, send: Send, server: RedisServer) -> Aftermath:
    with start_worker("-c", "50", queue="warm") as worker:
        held = [send("probe.hold", args=["warm-notes", 1.5], queue="warm") for _ in range(20)]
        limited = send("probe.hold", args=["warm-notes"], queue="warm", time_limit=2)
        until(lambda: server.client.llen("warm-notes") == 21)
        worker.send_signal(signal.SIGTERM)
        return Aftermath(worker, worker.wait(), held, limited)


def test_a_warm_shutdown_finishes_what_runs(after_warm: Aftermath) -> None:
    assert [task.get() for task in after_warm.held] == ["finished"] * 20


def test_a_warm_shutdown_acknowledges_what_it_finished(
    after_warm: Aftermath, server: RedisServer
) -> None:
    assert server.client.llen("warm") == 0
    assert not [message for message in server.client.hvals("unacked") if "warm-notes" in message]


def test_a_warm_shutdown_still_enforces_limits(after_warm: Aftermath) -> None:
    assert after_warm.limited.state == "FAILURE"


def test_a_warm_shutdown_is_clean(after_warm: Aftermath) -> None:
    assert after_warm.exit_code == 0
    for trouble in (
        "Traceback",
        "never awaited",
        "was destroyed",
        "never retrieved",
        "ignored its",
    ):
        assert trouble not in after_warm.worker.log


def test_what_belongs_to_the_loop_is_closed_at_the_end(after_warm: Aftermath, notes: Notes) -> None:
    assert notes("resource-closed").count(str(after_warm.worker.process.pid)) == 1


def test_a_soft_shutdown_waits_and_then_hands_the_rest_back(
    start_worker: StartWorker, send: Send, server: RedisServer, notes: Notes
) -> None:
    with start_worker("-c", "10", queue="soft", PROBE_SOFT_SHUTDOWN="1.5") as worker:
        short = [send("probe.hold", args=["short", 1.0], queue="soft") for _ in range(3)]
        long = [send("probe.hold", args=["long"], queue="soft") for _ in range(3)]
        until(lambda: len(notes("short")) == 3 and len(notes("long")) == 3)
        worker.send_signal(signal.SIGQUIT)
        worker.wait()
    assert [task.state for task in short] == ["SUCCESS"] * 3
    assert notes("short").count("finished") == 3
    assert notes("long") == ["started"] * 3 + ["CancelledError"] * 3
    waiting = server.client.lrange("soft", 0, -1)
    assert len(waiting) == 3
    assert all(any(task.id in message for message in waiting) for task in long)


@pytest.mark.parametrize("warm_first", [False, True], ids=["at-once", "during-a-warm-shutdown"])
def test_a_cold_shutdown_is_quick_and_hands_everything_back(
    start_worker: StartWorker,
    send: Send,
    server: RedisServer,
    notes: Notes,
    warm_first: bool,
) -> None:
    queue, key = f"cold-{warm_first}", f"cold-notes-{warm_first}"
    with start_worker("-c", "20", queue=queue) as worker:
        held = [send("probe.hold", args=[key], queue=queue) for _ in range(10)]
        # Nothing can stop this one; the shutdown must not wait for it.
        stuck = send("probe.plain", args=[DEADLINE], queue=queue)
        until(lambda: {task.state for task in [*held, stuck]} == {"STARTED"})
        until(lambda: len(notes(key)) == 10)
        if warm_first:
            worker.send_signal(signal.SIGTERM)
            until(lambda: "Warm shutdown" in worker.log)
        began = time.monotonic()
        worker.send_signal(signal.SIGQUIT)
        worker.wait()
        assert time.monotonic() - began < DEADLINE / 2
    assert notes(key).count("CancelledError") == 10
    assert {task.state for task in held} == {"STARTED"}
    assert server.client.llen(queue) == 11, worker.log
