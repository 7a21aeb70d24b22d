"""The asyncio pool, with a stand-in for Celery's tracer and without a worker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery
from hypothesis import given, settings
from hypothesis import strategies as st

from clasper_worker.engine.pool.job import Job
from clasper_worker.engine.pool.pool import TaskPool
from clasper_worker.engine.pool.task import CoroutineTask
from tests.examples import examples
from tests.waiting import until


@dataclass
class Sent:
    """A task in the pool, and what was reported of it."""

    task_id: str
    reports: list[tuple[str, Any]] = field(default_factory=list)
    job: Job | None = None

    def has(self, kind: str) -> bool:
        return any(report[0] == kind for report in self.reports)

    @property
    def ends(self) -> list[tuple[str, Any]]:
        return [report for report in self.reports if report[0] not in {"accepted", "soft"}]


class Bench:
    """A pool with tasks that wait to be told to go on."""

    def __init__(self, limit: int, **options: Any) -> None:
        self.app = Celery("bench", broker="memory://", set_as_current=False)
        self.gates: dict[str, threading.Event] = {}
        self.running: set[str] = set()
        self.peak = 0
        self.notes: list[str] = []
        self._declare()
        self.pool = TaskPool(limit, app=self.app, **options)
        self.pool.start()

    def _declare(self) -> None:
        bench = self

        @self.app.task(base=CoroutineTask, bind=True, name="gated", shared=False)
        async def gated(self: CoroutineTask, key: str) -> str:
            bench.running.add(key)
            bench.peak = max(bench.peak, len(bench.running))
            try:
                while not bench.gates[key].is_set():  # noqa: ASYNC110  # opened by other threads
                    await asyncio.sleep(0.001)
            except BaseException as exc:
                bench.notes.append(f"{key} {type(exc).__name__.lstrip('_')}")
                raise
            finally:
                bench.running.discard(key)
            return f"{key} done"

        @self.app.task(name="plain", shared=False)
        def plain(key: str) -> str:
            bench.running.add(key)
            bench.gates[key].wait(20)
            bench.running.discard(key)
            return threading.current_thread().name

    def _trace(self, name: str, *rest: Any) -> tuple[int, Any, float]:
        """As Celery's trace function: call the task, which returns or raises its outcome."""
        *_, body, content_type, _ = rest
        assert content_type is None
        args, kwargs, _ = body
        try:
            return 0, self.app.tasks[name](*args, **kwargs), 0.0
        except Exception:  # noqa: BLE001  # as the tracer does
            return 1, ExceptionInfo(), 0.0

    def send(
        self, key: str, name: str = "gated", task_id: str | None = None, **options: Any
    ) -> Sent:
        sent = Sent(task_id or key)
        self.gates.setdefault(key, threading.Event())
        reports = sent.reports
        sent.job = self.pool.apply_async(
            self._trace,
            (name, sent.task_id, {"id": sent.task_id}, ([key], {}, {}), None, None),
            accept_callback=lambda pid, _: reports.append(("accepted", pid)),
            callback=lambda result: reports.append(("result", result)),
            error_callback=lambda einfo: reports.append(("error", einfo)),
            timeout_callback=lambda soft, seconds: reports.append(
                ("soft" if soft else "hard", seconds)
            ),
            **options,
        )
        return sent

    def open(self, key: str) -> None:
        self.gates[key].set()

    @property
    def info(self) -> dict[str, Any]:
        return self.pool.info

    def close(self) -> None:
        for gate in self.gates.values():
            gate.set()
        self.pool.terminate()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench(2)
    yield bench
    bench.close()


def test_a_task_is_accepted_and_its_result_reported(bench: Bench) -> None:
    sent = bench.send("a")
    bench.open("a")
    until(lambda: sent.ends)
    assert sent.reports == [("accepted", sent.job and sent.job.pid), ("result", (0, "a done", 0.0))]


def test_each_job_has_a_pid_of_its_own(bench: Bench) -> None:
    first, second = bench.send("a"), bench.send("b")
    assert first.job is not None
    assert second.job is not None
    assert first.job.pid != second.job.pid


def test_no_more_run_than_there_are_slots(bench: Bench) -> None:
    sent = [bench.send(key) for key in "abcde"]
    until(lambda: len(bench.running) == 2)
    assert (bench.info["in-flight"], bench.info["waiting"]) == (2, 3)
    assert [task.has("accepted") for task in sent] == [True, True, False, False, False]
    for key in "abcde":
        bench.open(key)
    until(lambda: all(task.ends for task in sent))
    assert bench.peak == 2
    assert bench.info["in-flight"] == 0


def test_two_jobs_of_one_task_id_run_one_after_the_other(bench: Bench) -> None:
    first = bench.send("a", task_id="same")
    second = bench.send("b", task_id="same")
    other = bench.send("c")
    until(lambda: bench.running == {"a", "c"})
    assert not second.has("accepted")
    bench.open("a")
    until(lambda: first.ends and "b" in bench.running)
    bench.open("b")
    bench.open("c")
    until(lambda: second.ends and other.ends)


def test_the_soft_limit_is_reported_and_raised(bench: Bench) -> None:
    sent = bench.send("a", soft_timeout=0.02)
    until(lambda: sent.ends)
    assert ("soft", 0.02) in sent.reports
    kind, (failed, einfo, _) = sent.ends[0]
    assert (kind, failed) == ("result", 1)
    assert "SoftTimeLimitExceeded" in einfo.traceback
    assert len(sent.ends) == 1


def test_the_hard_limit_is_reported_instead_of_an_outcome(bench: Bench) -> None:
    sent = bench.send("a", timeout=0.02)
    until(lambda: sent.ends and bench.info["in-flight"] == 0)
    assert sent.ends == [("hard", 0.02)]
    assert bench.notes == ["a CancelledError"]


def test_the_pools_own_limits_are_the_default() -> None:
    bench = Bench(2, timeout=0.02)
    try:
        sent = bench.send("a")
        until(lambda: sent.ends)
        assert sent.ends == [("hard", 0.02)]
    finally:
        bench.close()


def test_without_a_hard_limit_the_time_after_the_soft_one_is_bounded_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(TaskPool, "seconds_after_soft_limit", 0.05)
    bench = Bench(2)

    @bench.app.task(base=CoroutineTask, name="overstay", shared=False)
    async def overstay(key: str) -> None:
        try:
            await asyncio.sleep(60)
        except Exception:  # noqa: BLE001  # the soft limit
            bench.notes.append(f"{key} caught it")
            await asyncio.sleep(60)

    try:
        sent = bench.send("a", name="overstay", soft_timeout=0.02)
        until(lambda: sent.ends and bench.info["in-flight"] == 0)
        assert [kind for kind, _ in sent.reports] == ["accepted", "soft", "hard"]
        assert sent.ends[0][1] == pytest.approx(0.07)
        assert bench.notes == ["a caught it"]
    finally:
        bench.close()


def test_terminating_cancels_and_reports_nothing(bench: Bench) -> None:
    sent = bench.send("a")
    until(lambda: "a" in bench.running)
    assert sent.job is not None
    bench.pool.terminate_job(sent.job.pid, 15)
    until(lambda: bench.info["in-flight"] == 0)
    assert sent.ends == []
    assert bench.notes == ["a CancelledError"]


def test_a_job_revoked_as_it_is_accepted_never_runs(bench: Bench) -> None:
    ran: list[Any] = []
    bench.gates["a"] = threading.Event()
    bench.pool.apply_async(
        bench._trace,
        ("gated", "a", {"id": "a"}, (["a"], {}, {}), None, None),
        accept_callback=lambda pid, _: bench.pool.terminate_job(pid),
        callback=ran.append,
    )
    assert bench.info["in-flight"] == 0
    assert ran == []
    assert bench.peak == 0


def test_a_waiting_job_can_be_withdrawn(bench: Bench) -> None:
    bench.send("a"), bench.send("b")
    waiting = bench.send("c")
    assert waiting.job is not None
    assert bench.pool.withdraw(waiting.job)
    assert not bench.pool.withdraw(waiting.job)
    assert bench.info["waiting"] == 0


def test_a_lost_connection_forgets_what_waits(bench: Bench) -> None:
    running = [bench.send("a"), bench.send("b")]
    waiting = bench.send("c")
    bench.pool.flush()
    for key in "abc":
        bench.open(key)
    until(lambda: all(task.ends for task in running))
    assert waiting.reports == []


def test_a_plain_function_runs_in_a_thread(bench: Bench) -> None:
    bench.gates["p"] = threading.Event()
    bench.open("p")
    sent = bench.send("p", name="plain")
    until(lambda: sent.ends)
    assert sent.ends[0][1][1].startswith("clasper-plain")


def test_a_plain_function_that_was_revoked_reports_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    sent = bench.send("p", name="plain")
    until(lambda: "p" in bench.running)
    assert sent.job is not None
    bench.pool.terminate_job(sent.job.pid)
    bench.open("p")
    until(lambda: bench.info["in-flight"] == 0)
    assert sent.ends == []
    assert "plain is not a coroutine and cannot be stopped" in caplog.text


def test_what_the_tracer_raises_is_reported_as_an_error(bench: Bench) -> None:
    errors: list[ExceptionInfo] = []

    def broken(*_: Any) -> None:
        raise OSError("result backend")

    bench.gates["a"] = threading.Event()
    bench.open("a")
    bench.pool.apply_async(
        broken,
        ("gated", "a", {"id": "a"}, (["a"], {}, {}), None, None),
        error_callback=errors.append,
    )
    until(lambda: errors)
    assert "result backend" in errors[0].traceback
    until(lambda: bench.info["in-flight"] == 0)


def test_a_message_that_cannot_be_decoded_is_left_to_the_tracer(bench: Bench) -> None:
    seen: list[Any] = []
    trace_args = ("gated", "a", {"id": "a"}, b"{", "application/json", "utf-8")
    bench.pool.apply_async(lambda *args: args, trace_args, callback=seen.append)
    until(lambda: seen)
    assert seen == [trace_args]


def test_growing_starts_what_waits(bench: Bench) -> None:
    for key in "abcd":
        bench.send(key)
    bench.pool.grow(2)
    until(lambda: len(bench.running) == 4)
    assert bench.pool.num_processes == 4


def test_shrinking_lets_what_runs_go_on_and_starts_less(bench: Bench) -> None:
    for key in "abc":
        bench.send(key)
    until(lambda: len(bench.running) == 2)
    bench.pool.shrink(1)
    bench.open("a")
    until(lambda: bench.info["in-flight"] == 1)
    assert bench.running == {"b"}
    bench.open("b")
    until(lambda: bench.running == {"c"})


def test_a_pool_keeps_one_slot(bench: Bench) -> None:
    with pytest.raises(ValueError, match="has 2 slots; 2 cannot be taken away"):
        bench.pool.shrink(2)


def test_stopping_finishes_what_runs_and_drops_what_waits(bench: Bench) -> None:
    running = [bench.send("a"), bench.send("b")]
    waiting = bench.send("c")
    until(lambda: len(bench.running) == 2)
    threading.Timer(0.1, lambda: [bench.open(key) for key in "abc"]).start()  # type: ignore[func-returns-value]
    bench.pool.close()
    bench.pool.stop()
    assert [task.ends[0][1][1] for task in running] == ["a done", "b done"]
    assert waiting.reports == []
    assert bench.send("d").job is None


def test_terminating_the_pool_cancels_what_runs(bench: Bench) -> None:
    sent = bench.send("a")
    until(lambda: bench.running)
    bench.pool.terminate()
    bench.pool.terminate()
    assert bench.notes == ["a CancelledError"]
    assert sent.ends == []


def test_arguments_are_not_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.pool._does_debug = True
    with caplog.at_level("DEBUG"):
        sent = bench.send("a person's message")
        bench.open("a person's message")
        until(lambda: sent.ends)
    assert "a person's message" not in caplog.text


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["send", "open", "terminate", "withdraw", "grow", "shrink"]),
        st.integers(0, 7),
    ),
    max_size=25,
)


def _act(bench: Bench, sent: list[Sent], stopped: set[str], action: str, number: int) -> None:
    task = sent[number % len(sent)] if sent else None
    if action == "send":
        sent.append(bench.send(f"k{len(sent)}", task_id=f"t{number}"))  # some share a task id
    elif action == "grow":
        bench.pool.grow(1)
    elif action == "shrink" and bench.pool.limit > 1:
        bench.pool.shrink(1)
    elif task is not None and task.job is not None:
        key = f"k{sent.index(task)}"
        if action == "open":
            bench.open(key)
        elif action == "terminate" and task.has("accepted"):
            bench.pool.terminate_job(task.job.pid)
            stopped.add(key)
        elif action == "withdraw" and bench.pool.withdraw(task.job):
            stopped.add(key)


@settings(max_examples=examples(30))
@given(ACTIONS)
def test_whatever_happens_no_slot_is_lost_and_each_task_ends_at_most_once(
    actions: list[tuple[str, int]],
) -> None:
    bench = Bench(2)
    sent: list[Sent] = []
    stopped: set[str] = set()
    try:
        for action, number in actions:
            _act(bench, sent, stopped, action, number)
        for number in range(len(sent)):
            bench.open(f"k{number}")
        until(lambda: bench.info["in-flight"] == 0 and bench.info["waiting"] == 0)
        for number, task in enumerate(sent):
            assert len(task.ends) <= 1
            if f"k{number}" not in stopped:
                assert task.ends == [("result", (0, f"k{number} done", 0.0))]
        assert bench.running == set()
    finally:
        bench.close()
