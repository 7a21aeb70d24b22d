"""Writing states together and settling outcomes, without a Redis."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from celery import Celery
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from clasper_worker.engine.pool.job import Call, Callbacks, Job, Limits
from clasper_worker.engine.pool.result_backend import (
    PATIENCE_SECONDS,
    AtomicRedisBackend,
    StateWrite,
)
from clasper_worker.engine.pool.result_writer import Settled, Settler
from clasper_worker.engine.pool.soft_limit import Run
from clasper_worker.engine.pool.task import CoroutineTask
from clasper_worker.engine.pool.traced_call import settling
from tests.waiting import until


class _Backend(AtomicRedisBackend):
    """Keeps what it is to send to Redis, batch by batch."""

    def __init__(self, app: Celery) -> None:
        super().__init__(app=app, url="redis://127.0.0.1:1/0")
        self.batches: list[list[tuple[str, str]]] = []
        self.alone: list[tuple[str, str]] = []
        self.refused: set[str] = set()
        self.is_away = False
        self.refusal: Exception | None = None
        self.may_write = threading.Event()
        self.may_write.set()
        self.is_writing = threading.Event()

    def write(self, writes: Sequence[StateWrite]) -> list[Exception | None]:
        self.is_writing.set()
        self.may_write.wait(20)
        if self.refusal is not None and self.is_away:
            raise self.refusal
        if self.refusal is not None:
            return [self.refusal] * len(writes)
        self.batches.append([_state(write) for write in writes])
        return [
            ResponseError("no") if _state(write)[0] in self.refused else None for write in writes
        ]

    def _write_one(self, key: bytes | str, value: str, expires: int, since: str) -> None:
        self.alone.append(_state(StateWrite(key, value, expires, since)))

    @property
    def together(self) -> list[tuple[str, str]]:
        return [state for batch in self.batches for state in batch]


def _state(write: StateWrite) -> tuple[str, str]:
    meta = json.loads(write.value)
    return meta["task_id"], meta["status"]


class _Bench:
    """A settler, and jobs whose coroutines have ended already."""

    def __init__(self) -> None:
        self.app = Celery("settler", broker="memory://", set_as_current=False)
        self.backend = _Backend(self.app)
        self.app._local.backend = self.app._backend_cache = self.backend
        self.launched: list[Job] = []
        self.reports: list[list[Settled]] = []
        self.seen: list[tuple[str, bool]] = []  # whether the tracer found its result stored
        self.threads: set[str] = set()
        self.settler = Settler("w@h", self.launched.append, self.reports.append, 2, 1, 0.0)
        self._pids = 0

        @self.app.task(base=CoroutineTask, name="t", shared=False, track_started=True)
        async def body() -> None:
            """Never runs."""

        self.task = self.app.tasks["t"]

    def job(self, task_id: str, task: Any = None, **embed: Any) -> Job:
        self._pids += 1
        job = Job(self._pids, self._trace, ("t", task_id), Callbacks(), Limits(), lambda _: None)
        job.task = task or self.task
        job.call = Call("t", task_id, {"id": task_id}, (), {}, embed)
        job.began = time.monotonic()
        return job

    def end(self, job: Job, value: Any = None, error: BaseException | None = None) -> None:
        """As the pool does when a coroutine has ended."""
        coro = self.task.coroutine()
        coro.close()
        job.run = Run(coro, lambda: None)
        job.run.value, job.run.error = value, error
        job.ended = time.monotonic()
        assert job.claim()
        self.settler.settle(job)

    def _trace(self, *args: Any) -> tuple[int, Any, float]:
        """What matters of Celery's tracer: it stores the outcome, unless that is ignored."""
        task_id = args[1]
        call = settling.call
        assert call is not None
        self.threads.add(threading.current_thread().name)
        self.seen.append((task_id, call.has_stored(task_id, "SUCCESS")))
        try:
            value = call.give()
        except Exception as exc:  # noqa: BLE001  # as the tracer does
            self.app.backend.mark_as_failure(task_id, exc)
            return 1, None, 0.0
        self.app.backend.mark_as_done(task_id, value)
        return 0, value, 0.0

    @property
    def reported(self) -> list[str]:
        return [settled.job.args[1] for report in self.reports for settled in report]


@pytest.fixture
def bench() -> Iterator[_Bench]:
    bench = _Bench()
    yield bench
    bench.backend.may_write.set()
    bench.settler.close(5)
    bench.app.close()


@pytest.fixture
def held(bench: _Bench) -> _Bench:
    """A bench whose first batch is being written, so that what follows is one batch."""
    bench.backend.may_write.clear()
    bench.settler.announce(bench.job("first"))
    assert bench.backend.is_writing.wait(10)
    return bench


def test_a_job_starts_without_waiting_for_its_started_state(held: _Bench) -> None:
    job = held.job("a")
    held.settler.announce(job)
    assert job in held.launched
    assert held.backend.together == []
    held.backend.may_write.set()
    until(lambda: ("a", "STARTED") in held.backend.together)


def test_a_task_that_does_not_track_it_has_no_started_state(bench: _Bench) -> None:
    bench.task.track_started = False
    job = bench.job("a")
    bench.settler.announce(job)
    assert bench.launched == [job]
    bench.end(job)
    until(lambda: bench.reported)
    assert bench.backend.together == [("a", "SUCCESS")]


def test_outcomes_of_a_moment_are_written_and_reported_together(held: _Bench) -> None:
    for name in "abc":
        held.end(held.job(name), name)
    held.backend.may_write.set()
    until(lambda: held.reports)
    assert held.backend.batches[1] == [(name, "SUCCESS") for name in "abc"]
    assert held.reported == ["a", "b", "c"]
    assert len(held.reports) == 1
    assert held.reports[0][0].result == (0, "a", 0.0)


def test_the_tracer_runs_when_the_result_is_stored_and_does_not_store_it_again(
    bench: _Bench,
) -> None:
    bench.backend.may_write.clear()
    bench.end(bench.job("a"), 42)
    assert bench.backend.is_writing.wait(10)
    assert bench.seen == []
    bench.backend.may_write.set()
    until(lambda: bench.reported)
    assert bench.seen == [("a", True)]
    assert bench.backend.alone == []


def test_started_precedes_the_outcome(bench: _Bench) -> None:
    job = bench.job("a")
    bench.settler.announce(job)
    until(lambda: bench.backend.together)
    bench.end(job)
    until(lambda: bench.reported)
    assert bench.backend.together == [("a", "STARTED"), ("a", "SUCCESS")]


def test_started_is_left_out_where_the_outcome_is_at_hand(held: _Bench) -> None:
    job = held.job("a")
    held.settler.announce(job)
    held.end(job)
    held.backend.may_write.set()
    until(lambda: held.reported)
    assert held.backend.batches[1] == [("a", "SUCCESS")]


def test_started_is_left_out_where_the_end_has_been_decided(held: _Bench) -> None:
    job, other = held.job("a"), held.job("b")
    held.settler.announce(job)
    held.settler.announce(other)
    assert job.claim()  # revoked
    held.backend.may_write.set()
    until(lambda: len(held.backend.batches) == 2)
    assert held.backend.batches[1] == [("b", "STARTED")]


def test_a_result_that_cannot_be_encoded_goes_its_own_way_alone(held: _Bench) -> None:
    held.end(held.job("a"), 1)
    held.end(held.job("b"), object())
    held.end(held.job("c"), 3)
    held.backend.may_write.set()
    until(lambda: len(held.reported) == 3)
    assert held.backend.batches[1] == [("a", "SUCCESS"), ("c", "SUCCESS")]
    assert ("b", False) in held.seen


def test_a_result_that_is_too_large_goes_its_own_way_alone(
    held: _Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AtomicRedisBackend, "_MAX_STR_VALUE_SIZE", 400)
    held.end(held.job("a"), "x" * 500)
    held.end(held.job("b"), "x")
    held.backend.may_write.set()
    until(lambda: len(held.reported) == 2)
    assert held.backend.batches[1] == [("b", "SUCCESS")]
    assert ("a", False) in held.seen
    failure = next(done.failure for report in held.reports for done in report if done.failure)
    assert "too large" in failure.traceback


def test_a_result_that_redis_refuses_is_left_to_the_tracer(held: _Bench) -> None:
    held.backend.refused = {"b"}
    for name in "ab":
        held.end(held.job(name), name)
    held.backend.may_write.set()
    until(lambda: len(held.reported) == 2)
    assert dict(held.seen) == {"a": True, "b": False}
    assert held.backend.alone == [("b", "SUCCESS")]


PASSING = [
    RedisConnectionError("away"),
    OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
    ReadOnlyError("You can't write against a read only replica."),
    ResponseError("BUSY Redis is busy running a script."),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("whole", [True, False], ids=["no-answer", "answered-each"])
def test_while_redis_refuses_outcomes_wait_and_none_is_lost(
    held: _Bench, caplog: pytest.LogCaptureFixture, error: Exception, whole: bool
) -> None:
    caplog.set_level("INFO")
    held.backend.refusal, held.backend.is_away = error, whole
    ending, running = held.job("a"), held.job("b")
    held.end(ending, 1)
    held.settler.announce(running)
    held.backend.may_write.set()
    until(lambda: "waiting to store" in caplog.text)
    assert held.reported == []
    held.backend.refusal = None
    until(lambda: held.reported)
    assert held.seen == [("a", True)]
    assert set(held.backend.together) >= {("a", "SUCCESS"), ("b", "STARTED")}
    assert held.backend.alone == []
    assert "stored again" in caplog.text


def test_an_outcome_that_has_waited_for_long_no_longer_keeps_others_waiting(held: _Bench) -> None:
    held.backend.refusal, held.backend.is_away = RedisConnectionError("away"), True
    job = held.job("a")
    held.end(job, 1)
    job.ended -= PATIENCE_SECONDS
    held.backend.may_write.set()
    until(lambda: held.reported)
    assert held.seen == [("a", False)]


def test_a_fault_in_writing_costs_no_job_its_outcome(
    held: _Bench, caplog: pytest.LogCaptureFixture
) -> None:
    held.backend.refusal, held.backend.is_away = ZeroDivisionError("a fault of ours"), True
    held.end(held.job("a"), 1)
    held.backend.may_write.set()
    until(lambda: held.reported)
    assert held.backend.alone == [("a", "SUCCESS")]
    assert "failed" in caplog.text


def test_a_started_state_that_redis_refuses_is_given_up(
    bench: _Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.backend.refused = {"a"}
    bench.settler.announce(bench.job("a"))
    until(lambda: "could not store STARTED of t" in caplog.text)
    bench.settler.announce(bench.job("b"))
    until(lambda: len(bench.backend.batches) == 2)
    assert bench.backend.batches[1] == [("b", "STARTED")]


@pytest.mark.parametrize("part", ["callbacks", "chain", "chord"])
def test_what_leads_on_to_other_tasks_is_settled_alone(bench: _Bench, part: str) -> None:
    bench.end(bench.job("a", **{part: [{"task": "next"}]}), 1)
    until(lambda: bench.reported)
    assert bench.seen == [("a", False)]
    assert bench.backend.alone == [("a", "SUCCESS")]
    assert bench.backend.batches == []
    assert all(name.startswith("clasper-settle") for name in bench.threads)


def test_an_error_is_settled_alone(bench: _Bench) -> None:
    bench.end(bench.job("a"), error=ValueError("wrong"))
    until(lambda: bench.reported)
    assert bench.backend.alone == [("a", "FAILURE")]
    assert bench.backend.batches == []


@pytest.mark.parametrize("hook", ["before_start", "on_success", "after_return"])
def test_a_task_with_hooks_is_settled_alone(bench: _Bench, hook: str) -> None:
    class Hooked(CoroutineTask):
        abstract = True

    setattr(Hooked, hook, lambda *_: None)

    @bench.app.task(base=Hooked, name="hooked", shared=False)
    async def body() -> None:
        """Never runs."""

    bench.end(bench.job("a", bench.app.tasks["hooked"]), 1)
    until(lambda: bench.reported)
    assert bench.seen == [("a", False)]


def test_a_call_whose_result_is_ignored_stores_nothing_ahead(bench: _Bench) -> None:
    job = bench.job("a")
    assert job.call is not None
    job.call.request["ignore_result"] = True
    bench.settler.announce(job)
    bench.end(job, 1)
    until(lambda: bench.reported)
    assert bench.backend.batches == []


@pytest.mark.parametrize("setting", ["result_extended", "worker_deduplicate_successful_tasks"])
def test_where_the_tracer_knows_more_it_stores_the_result(setting: str) -> None:
    bench = _Bench()
    bench.app.conf[setting] = True
    bench.end(bench.job("a"), 1)
    until(lambda: bench.reported)
    assert bench.seen == [("a", False)]
    bench.settler.close(5)


def test_with_another_backend_a_job_starts_when_started_is_stored() -> None:
    bench = _Bench()
    other = Celery("other", broker="memory://", backend="cache+memory://", set_as_current=False)
    bench.app._local.backend = bench.app._backend_cache = other.backend
    job = bench.job("a")
    bench.settler.announce(job)
    until(lambda: bench.launched)
    assert other.backend.get_state("a") == "STARTED"
    assert not job.announcing
    bench.end(job, 1)
    until(lambda: bench.reported)
    assert other.backend.get_state("a") == "SUCCESS"
    bench.settler.close(5)
    other.close()
