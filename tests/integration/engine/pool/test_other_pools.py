"""The same coroutine tasks under Celery's own pools, through the bridge."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from uuid import uuid4

import pytest
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from pool_harness import Notes, Send, StartWorker, Worker

from tests.waiting import until

pytestmark = pytest.mark.integration

IMPLEMENTATIONS = {
    "prefork": "celery.concurrency.prefork:TaskPool",
    "threads": "celery.concurrency.thread:TaskPool",
    "solo": "celery.concurrency.solo:TaskPool",
}


@dataclass(frozen=True)
class Pool:
    """A worker with one of Celery's own pools, and the queue that it alone serves."""

    implementation: str
    queue: str
    worker: Worker


@pytest.fixture(scope="module")
def pool_of(start_worker: StartWorker) -> Iterator[Callable[[str], Pool]]:
    """A worker with the pool of that name; the same one each time."""
    pools: dict[str, Pool] = {}
    with ExitStack() as workers:

        def get(name: str) -> Pool:
            if name not in pools:
                queue = f"pool-{name}"
                worker = workers.enter_context(start_worker("-P", name, "-c", "4", queue=queue))
                pools[name] = Pool(IMPLEMENTATIONS[name], queue, worker)
            return pools[name]

        yield get


@pytest.fixture(params=list(IMPLEMENTATIONS))
def pool(request: pytest.FixtureRequest, pool_of: Callable[[str], Pool]) -> Pool:
    return pool_of(request.param)


@pytest.fixture
def prefork(pool_of: Callable[[str], Pool]) -> Pool:
    return pool_of("prefork")


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
    # A pause, or the next attempt may be done before Celery has stored RETRY of this one.
    assert send(task, args=[1, 0.5], queue=pool.queue).get() == 1


def test_an_exception_is_a_failure(pool: Pool, send: Send) -> None:
    with pytest.raises(ValueError, match="no luck"):
        send("probe.fail", args=["no luck"], queue=pool.queue).get()


def test_started_is_visible_while_the_coroutine_runs(
    pool: Pool, send: Send, notes: Notes, key: str
) -> None:
    result = send("probe.hold", args=[key, 0.3], queue=pool.queue)
    until(lambda: notes(key))
    assert result.state == "STARTED"
    assert result.get() == "finished"


def test_a_plain_function_may_wait_for_a_coroutine(pool: Pool, send: Send) -> None:
    assert send("probe.bridged", args=[21], queue=pool.queue).get() == 42


def test_all_threads_share_one_loop(pool_of: Callable[[str], Pool], send: Send) -> None:
    queue = pool_of("threads").queue
    # Each waits for the others on one asyncio.Barrier.
    met = [send("probe.meet", args=["threads", 4], queue=queue) for _ in range(4)]
    assert [result.get() for result in met] == [4] * 4


def test_preforks_soft_limit_reaches_the_coroutine(
    prefork: Pool, send: Send, notes: Notes, key: str
) -> None:
    result = send(
        "probe.say_goodbye", args=[key], queue=prefork.queue, soft_time_limit=1, time_limit=30
    )
    with pytest.raises(SoftTimeLimitExceeded):
        result.get()
    assert [note.split()[0] for note in notes(key)] == ["goodbye"]


def test_preforks_hard_limit_ends_the_coroutine_with_its_process(
    prefork: Pool, send: Send, notes: Notes, key: str
) -> None:
    result = send("probe.hold", args=[key], queue=prefork.queue, time_limit=2)
    with pytest.raises(TimeLimitExceeded):
        result.get()
    assert notes(key)[0] == "started"
    assert "finished" not in notes(key)
    # The child that takes its place makes a loop of its own.
    assert send("probe.echo", args=[1], queue=prefork.queue).get()["value"] == 1


def test_preforks_revoke_ends_the_coroutine(
    prefork: Pool, send: Send, notes: Notes, key: str
) -> None:
    result = send("probe.hold", args=[key], queue=prefork.queue)
    until(lambda: notes(key))
    result.revoke(terminate=True)
    until(lambda: result.state == "REVOKED")


@pytest.mark.parametrize("name", list(IMPLEMENTATIONS))
def test_what_belongs_to_the_loop_is_closed_at_the_end(
    start_worker: StartWorker, send: Send, notes: Notes, key: str, name: str
) -> None:
    queue = f"queue-{key}"
    with start_worker("-P", name, "-c", "1", queue=queue) as worker:
        pid = send("probe.echo", args=[1], queue=queue).get()["pid"]
        send("probe.hold", args=[key, 0.0], queue=queue).get()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.log
    assert notes("resource-closed").count(str(pid)) == 1
    assert "never awaited" not in worker.log
    assert "Traceback" not in worker.log
