"""A transport without an event loop of its own, where reports are made from other threads."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from pool_harness import DEADLINE, REPOSITORY

pytestmark = pytest.mark.integration

SCRIPT = """
import asyncio
import threading

from celery import Celery
from celery.contrib.testing.worker import start_worker
from clasper_worker.engine.pool.task import CoroutineTask

app = Celery("hubless", broker="memory://", backend="cache+memory://")
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={"polling_interval": 0.05},
)
running, peak = 0, 0


@app.task(base=CoroutineTask)
async def count(number):
    global running, peak
    running += 1
    peak = max(peak, running)
    await asyncio.sleep(0.01)
    running -= 1
    return number, threading.current_thread().name


with start_worker(
    app,
    concurrency=5,
    pool="clasper_worker.engine.pool.pool:TaskPool",
    perform_ping_check=False,
) as worker:
    assert worker.hub is None
    results = [count.delay(number) for number in range(12)]
    options = {"timeout": 30, "interval": 0.05, "disable_sync_subtasks": False}
    values = [result.get(**options) for result in results]
assert [list(value) for value in values] == [[number, "clasper-loop"] for number in range(12)]
assert 1 < peak <= 5, peak
print("fine")
"""


def test_tasks_run_and_are_bounded_without_a_hub() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert ran.stdout.endswith("fine\n"), ran.stdout + ran.stderr
