"""Starting and stopping coroutines on the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from clasper_worker.engine.pool.job import Call, Callbacks, Job, Limits
from clasper_worker.engine.pool.loop import LoopThread
from clasper_worker.engine.pool.runner import CoroutineRunner
from clasper_worker.engine.pool.task import CoroutineTask


class _Watch:
    def __init__(self) -> None:
        self.ended: list[Job] = []
        self.limits: list[tuple[bool, float]] = []
        self.end = threading.Event()

    def on_end(self, job: Job) -> None:
        self.ended.append(job)
        self.end.set()

    def on_limit(self, job: Job, soft: bool, seconds: float) -> None:
        del job
        self.limits.append((soft, seconds))


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread("runner-loop")
    yield thread
    thread.close()


@pytest.fixture
def watch() -> _Watch:
    return _Watch()


@pytest.fixture
def runner(thread: LoopThread, watch: _Watch) -> CoroutineRunner:
    return CoroutineRunner(
        thread, watch.on_end, watch.on_limit, seconds_after_soft_limit=0.05, recancel_after=0.02
    )


def _job(body: Any, *args: Any, limits: Limits | None = None) -> Job:
    app = Celery("runner", broker="memory://", set_as_current=False)
    task = app.task(base=CoroutineTask, name="runner.body", shared=False, lazy=False)(body)
    job = Job(1, print, ("runner.body", "t1"), Callbacks(), limits or Limits(), lambda _: None)
    job.task = task
    job.call = Call("runner.body", "t1", {"id": "t1"}, args, {}, {})
    return job


def test_a_job_ends_with_its_outcome_and_times(runner: CoroutineRunner, watch: _Watch) -> None:
    async def body(value: int) -> int:
        await asyncio.sleep(0.02)
        return value * 2

    job = _job(body, 21)
    runner.launch(job)
    assert watch.end.wait(10)
    assert watch.ended == [job]
    assert job.run is not None
    assert job.run.value == 42
    assert job.ended - job.began >= 0.02


def test_arguments_that_do_not_fit_are_its_error(runner: CoroutineRunner, watch: _Watch) -> None:
    async def body() -> None:
        await asyncio.sleep(0)

    job = _job(body, "too", "many")
    runner.launch(job)
    assert watch.end.wait(10)
    assert job.run is not None
    assert isinstance(job.run.error, TypeError)


def test_a_claimed_job_is_not_started(runner: CoroutineRunner, watch: _Watch) -> None:
    ran: list[str] = []

    async def body() -> None:  # never runs
        ran.append("ran")

    job = _job(body)
    assert job.claim()
    runner.launch(job)
    assert watch.end.wait(10)
    assert ran == []
    assert job.run is None


def test_a_coroutine_that_goes_on_is_cancelled_again(
    runner: CoroutineRunner, watch: _Watch, caplog: pytest.LogCaptureFixture
) -> None:
    started, ignored = threading.Event(), list[int]()

    async def body() -> None:
        started.set()
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ignored.append(1)
                if len(ignored) == 3:
                    raise

    job = _job(body)
    runner.launch(job)
    assert started.wait(10)
    assert job.claim()
    runner.stop(job)
    assert watch.end.wait(10)
    assert len(ignored) == 3
    assert "a coroutine of runner.body goes on 0.02 s after it was cancelled" in caplog.text


def test_a_soft_limit_that_is_not_below_the_hard_one_is_left_out(
    runner: CoroutineRunner, watch: _Watch
) -> None:
    async def body() -> None:
        await asyncio.sleep(60)

    job = _job(body, limits=Limits(0.03, 0.03))
    runner.launch(job)
    assert watch.end.wait(10)
    assert watch.limits == [(False, 0.03)]
    assert job.is_claimed


def test_stopping_after_the_loop_was_closed_does_nothing(
    runner: CoroutineRunner, thread: LoopThread
) -> None:
    async def body() -> None:
        await asyncio.sleep(0)

    thread.close()
    runner.stop(_job(body))
