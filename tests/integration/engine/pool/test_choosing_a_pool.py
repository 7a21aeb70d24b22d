"""Which pool a worker gets, how wide it is, and what it says about that."""

from __future__ import annotations

import os

import pytest
from pool_harness import RedisServer, StartWorker, run_celery

pytestmark = pytest.mark.integration

ASYNCIO = "clasper_worker.engine.pool.pool:TaskPool"
PREFORK = "celery.concurrency.prefork:TaskPool"
THREADS = "celery.concurrency.thread:TaskPool"


def test_the_asyncio_pool_with_500_slots_is_the_default(start_worker: StartWorker) -> None:
    with start_worker() as worker:
        stats = worker.ask("stats")
        assert stats["pool"]["implementation"] == ASYNCIO
        assert stats["pool"]["max-concurrency"] == 500
        assert stats["prefetch_count"] == 500
        assert "up to 500 turns at a time in this process" in worker.log


@pytest.mark.parametrize(
    ("options", "implementation", "concurrency"),
    [
        (["-P", "prefork"], PREFORK, os.cpu_count()),
        (["-P", "processes", "-c", "1"], PREFORK, 1),
        (["--pool=threads"], THREADS, os.cpu_count()),
    ],
    ids=["prefork", "processes", "threads"],
)
def test_the_options_decide(
    start_worker: StartWorker, options: list[str], implementation: str, concurrency: int
) -> None:
    with start_worker(*options) as worker:
        pool = worker.ask("stats")["pool"]
        assert pool["implementation"] == implementation
        assert pool["max-concurrency"] == concurrency


def test_autoscale_is_refused_with_a_reason(server: RedisServer) -> None:
    refused = run_celery(server, "worker", "--autoscale=10,2")
    assert refused.returncode == 1
    assert "does not autoscale" in refused.stderr
    assert "with -c instead of --autoscale" in refused.stderr


@pytest.mark.parametrize("name", ["max_tasks_per_child", "max_memory_per_child"])
@pytest.mark.parametrize("how", ["option", "setting"])
def test_limits_of_child_processes_are_refused_with_a_reason(
    server: RedisServer, name: str, how: str
) -> None:
    given = f"--{name.replace('_', '-')}=3" if how == "option" else f"worker.{name}=3"
    refused = run_celery(server, "worker", *(["--"] if how == "setting" else []), given)
    assert refused.returncode == 1
    assert "no child processes" in refused.stderr
    assert f"worker_{name}" in refused.stderr
    assert "-P prefork" in refused.stderr


def test_prefork_takes_them(start_worker: StartWorker) -> None:
    with start_worker("-P", "prefork", "-c", "1", "--max-tasks-per-child", "3") as worker:
        assert worker.ask("stats")["pool"]["max-tasks-per-child"] == 3
