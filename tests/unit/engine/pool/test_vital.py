"""Threads without which a worker cannot go on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from celery.worker import state as worker_state

from clasper_worker.engine.pool import vital as module
from clasper_worker.engine.pool.loop import LoopThread
from clasper_worker.engine.pool.threads import BatchThread, ThreadCrew
from clasper_worker.engine.pool.vital import EXIT_CODE, is_worker, vital
from tests.waiting import eventually, until


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Celery's, of a worker that this process is taken for."""
    controller = SimpleNamespace(exitcode=None)
    monkeypatch.setattr(worker_state, "should_terminate", None)
    monkeypatch.setattr(module.threading, "Timer", lambda *_: SimpleNamespace(start=lambda: None))  # type: ignore[attr-defined]
    is_worker(controller)
    yield controller
    is_worker(None)


def ends(controller: SimpleNamespace) -> bool:
    return (controller.exitcode, worker_state.should_terminate) == (EXIT_CODE, EXIT_CODE)


@pytest.mark.parametrize("error", [RuntimeError("a fault"), SystemExit(0), MemoryError()])
def test_the_worker_ends_loudly_with_a_vital_thread(
    controller: SimpleNamespace, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    with vital("the result writer"):
        raise error
    assert ends(controller)
    assert "cannot go on without the result writer" in caplog.text


def test_one_that_ends_as_it_should_ends_nothing(controller: SimpleNamespace) -> None:
    with vital("the result writer"):
        pass
    assert not ends(controller)


def test_another_process_only_logs_it(caplog: pytest.LogCaptureFixture) -> None:
    with vital("the event loop"):
        raise RuntimeError("a fault")
    assert worker_state.should_terminate is None
    assert "has ended by a fault" in caplog.text


def test_a_result_writer_that_dies_ends_the_worker(controller: SimpleNamespace) -> None:
    def work(_: list[int]) -> list[int]:
        raise SystemExit(0)

    thread: BatchThread[int] = BatchThread("clasper-write", work, 0.0)
    thread.put(1)
    until(lambda: ends(controller))


def test_an_event_loop_that_is_stopped_by_what_it_runs_ends_the_worker(
    controller: SimpleNamespace,
) -> None:
    thread = LoopThread()
    thread.loop.call_soon_threadsafe(thread.loop.stop)
    until(lambda: ends(controller))


def test_closing_the_event_loop_does_not(controller: SimpleNamespace) -> None:
    LoopThread().close()
    assert not ends(controller)


async def test_a_crew_goes_on_after_work_that_wanted_to_end_its_thread() -> None:
    crew = ThreadCrew("test", 1)
    done = threading.Event()

    def leave() -> None:
        raise SystemExit(1)

    crew.submit(leave)
    crew.submit(done.set)
    await eventually(done.is_set)
    with pytest.raises(SystemExit):
        await crew.call(leave)
    crew.close(5)
