"""The same coroutine tasks under Celery's own pools, through the bridge."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from pool_harness import DEADLINE, Notes, StartWorker, Worker, until

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


def test_a_coroutine_runs_and_knows_its_job(pool: Pool, celery_client: Celery) -> None:
    result = celery_client.send_task(
        "probe.echo", args=["x"], queue=pool.queue, soft_time_limit=20, time_limit=30
    )
    seen = result.get(timeout=DEADLINE)
    assert seen["value"] == "x"
    assert seen["request_id"] == result.id == seen["job"]["id"]
    assert seen["thread"] == "clasper-loop"
    assert (seen["job"]["soft_limit"], seen["job"]["hard_limit"]) == (20, 30)
    assert seen["job"]["hostname"]


@pytest.mark.parametrize("task", ["probe.retry", "probe.autoretry"])
def test_retries_work(pool: Pool, celery_client: Celery, task: str) -> None:
    assert celery_client.send_task(task, args=[2], queue=pool.queue).get(timeout=DEADLINE) == 2


def test_an_exception_is_a_failure(pool: Pool, celery_client: Celery) -> None:
    result = celery_client.send_task("probe.fail", args=["no luck"], queue=pool.queue)
    with pytest.raises(ValueError, match="no luck"):
        result.get(timeout=DEADLINE)


def test_started_is_visible_while_the_coroutine_runs(
    pool: Pool, celery_client: Celery, notes: Notes, key: str
) -> None:
    result = celery_client.send_task("probe.hold", args=[key, 0.3], queue=pool.queue)
    until(lambda: notes(key))
    assert result.state == "STARTED"
    assert result.get(timeout=DEADLINE) == "finished"


def test_a_plain_function_may_wait_for_a_coroutine(pool: Pool, celery_client: Celery) -> None:
    result = celery_client.send_task("probe.bridged", args=[21], queue=pool.queue)
    assert result.get(timeout=DEADLINE) == 42


def test_all_threads_share_one_loop(start_worker: StartWorker, celery_client: Celery) -> None:
    with start_worker("-P", "threads", "-c", "8", queue="shared"):
        # Each waits for the others on one asyncio.Barrier.
        met = [
            celery_client.send_task("probe.meet", args=["threads", 8], queue="shared")
            for _ in range(8)
        ]
        assert [result.get(timeout=DEADLINE) for result in met] == [8] * 8


@pytest.fixture(scope="module")
def prefork(start_worker: StartWorker) -> Iterator[Worker]:
    with start_worker("-P", "prefork", "-c", "1", queue="limits") as worker:
        yield worker


def test_preforks_soft_limit_reaches_the_coroutine(
    prefork: Worker, celery_client: Celery, notes: Notes, key: str
) -> None:
    result = celery_client.send_task(
        "probe.say_goodbye", args=[key], queue="limits", soft_time_limit=1, time_limit=30
    )
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=DEADLINE)
    assert [note.split()[0] for note in notes(key)] == ["goodbye"]


def test_preforks_hard_limit_ends_the_coroutine_with_its_process(
    prefork: Worker, celery_client: Celery, notes: Notes, key: str
) -> None:
    result = celery_client.send_task("probe.hold", args=[key], queue="limits", time_limit=1)
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=DEADLINE)
    assert notes(key) == ["started"]
    # The child that takes its place makes a loop of its own.
    echo = celery_client.send_task("probe.echo", args=[1], queue="limits")
    assert echo.get(timeout=DEADLINE)["value"] == 1


def test_preforks_revoke_ends_the_coroutine(
    prefork: Worker, celery_client: Celery, notes: Notes, key: str
) -> None:
    result = celery_client.send_task("probe.hold", args=[key], queue="limits")
    until(lambda: notes(key))
    result.revoke(terminate=True)
    until(lambda: result.state == "REVOKED")


@pytest.mark.parametrize("name", list(IMPLEMENTATIONS))
def test_what_belongs_to_the_loop_is_closed_at_the_end(
    start_worker: StartWorker, celery_client: Celery, notes: Notes, key: str, name: str
) -> None:
    with start_worker("-P", name, "-c", "1", queue=key) as worker:
        pid = celery_client.send_task("probe.echo", args=[1], queue=key).get(timeout=DEADLINE)[
            "pid"
        ]
        celery_client.send_task("probe.hold", args=[key, 0.0], queue=key).get(timeout=DEADLINE)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.log
        assert notes("resource-closed").count(str(pid)) == 1
        assert "never awaited" not in worker.log
        assert "Traceback" not in worker.log
