"""The same coroutine tasks under Celery's own pools, through the bridge."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import pytest
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from pool_harness import Notes, Send, StartWorker, Worker, until

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Pool:
    name: str
    option: str
    implementation: str
    queue: str
    worker: Worker


IMPLEMENTATIONS = {
    "prefork": "celery.concurrency.prefork:TaskPool",
    "threads": "celery.concurrency.thread:TaskPool",
    "solo": "celery.concurrency.solo:TaskPool",
}


@pytest.fixture(scope="module", params=list(IMPLEMENTATIONS))
def pool(request: pytest.FixtureRequest, start_worker: StartWorker) -> Iterator[Pool]:
    name = request.param
    queue = f"pool-{name}"
    with start_worker("-P", name, "-c", "2", queue=queue) as worker:
        yield Pool(name, name, IMPLEMENTATIONS[name], queue, worker)


@pytest.fixture
def key() -> str:
    return f"note:{uuid4()}"


def test_the_pool_is_the_one_that_was_asked_for(pool: Pool) -> None:
    assert pool.worker.ask("stats")["pool"]["implementation"] == pool.implementation


def test_a_coroutine_runs_and_knows_its_job(pool: Pool, send: Send) -> None:
    result = send("probe.echo", args=["x"], queue=pool.queue, soft_time_limit=20, time_limit=30)
    seen = result.get()
    assert seen["value"] == "x"
    assert seen["request_id"] == result.id == seen["job"]["id"]
    assert seen["thread"] == "clasper-loop"
    assert (seen["job"]["soft_limit"], seen["job"]["hard_limit"]) == (20, 30)
    assert seen["job"]["hostname"]


@pytest.mark.parametrize("task", ["probe.retry", "probe.autoretry"])
def test_retries_work(pool: Pool, send: Send, task: str) -> None:
    assert send(task, args=[2], queue=pool.queue).get() == 2


def test_an_exception_is_a_failure(pool: Pool, send: Send) -> None:
    result = send("probe.fail", args=["no luck"], queue=pool.queue)
    with pytest.raises(ValueError, match="no luck"):
        result.get()


def test_started_is_visible_while_the_coroutine_runs(
    pool: Pool, send: Send, notes: Notes, key: str
) -> None:
    result = send("probe.hold", args=[key, 0.3], queue=pool.queue)
    until(lambda: notes(key))
    assert result.state == "STARTED"
    assert result.get() == "finished"


def test_a_plain_function_may_wait_for_a_coroutine(pool: Pool, send: Send) -> None:
    result = send("probe.bridged", args=[21], queue=pool.queue)
    assert result.get() == 42


def test_all_threads_share_one_loop(start_worker: StartWorker, send: Send) -> None:
    with start_worker("-P", "threads", "-c", "8", queue="shared"):
        # Each waits for the others on one asyncio.Barrier.
        met = [send("probe.meet", args=["threads", 8], queue="shared") for _ in range(8)]
        assert [result.get() for result in met] == [8] * 8


@pytest.fixture(scope="module")
def prefork(start_worker: StartWorker) -> Iterator[Worker]:
    with start_worker("-P", "prefork", "-c", "1", queue="limits") as worker:
        yield worker


def test_preforks_soft_limit_reaches_the_coroutine(
    prefork: Worker, send: Send, notes: Notes, key: str
) -> None:
    result = send("probe.say_goodbye", args=[key], queue="limits", soft_time_limit=1, time_limit=30)
    with pytest.raises(SoftTimeLimitExceeded):
        result.get()
    assert [note.split()[0] for note in notes(key)] == ["goodbye"]


def test_preforks_hard_limit_ends_the_coroutine_with_its_process(
    prefork: Worker, send: Send, notes: Notes, key: str
) -> None:
    result = send("probe.hold", args=[key], queue="limits", time_limit=1)
    with pytest.raises(TimeLimitExceeded):
        result.get()
    assert notes(key) == ["started"]
    # The child that takes its place makes a loop of its own.
    echo = send("probe.echo", args=[1], queue="limits")
    assert echo.get()["value"] == 1


def test_preforks_revoke_ends_the_coroutine(
    prefork: Worker, send: Send, notes: Notes, key: str
) -> None:
    result = send("probe.hold", args=[key], queue="limits")
    until(lambda: notes(key))
    result.revoke(terminate=True)
    until(lambda: result.state == "REVOKED")


@pytest.mark.parametrize("name", list(IMPLEMENTATIONS))
def test_what_belongs_to_the_loop_is_closed_at_the_end(
    start_worker: StartWorker, send: Send, notes: Notes, key: str, name: str
) -> None:
    with start_worker("-P", name, "-c", "1", queue=f"queue-{key}") as worker:
        pid = send("probe.echo", args=[1], queue=f"queue-{key}").get()["pid"]
        send("probe.hold", args=[key, 0.0], queue=f"queue-{key}").get()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.log
        assert notes("resource-closed").count(str(pid)) == 1
        assert "never awaited" not in worker.log
        assert "Traceback" not in worker.log
