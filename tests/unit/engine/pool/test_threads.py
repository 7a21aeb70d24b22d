"""Threads for work that blocks."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from clasper_worker.engine.pool.threads import BatchThread, ThreadCrew


@pytest.fixture
def crew() -> Iterator[ThreadCrew]:
    crew = ThreadCrew("test-crew", 3)
    yield crew
    crew.close(5)


def test_work_is_done_in_a_named_daemon_thread(crew: ThreadCrew) -> None:
    seen: SimpleQueue[threading.Thread] = SimpleQueue()
    crew.submit(lambda: seen.put(threading.current_thread()))
    thread = seen.get(timeout=5)
    assert thread.name == "test-crew-0"
    assert thread.daemon


def test_no_thread_is_started_before_there_is_work(crew: ThreadCrew) -> None:
    assert len(crew) == 0


def test_a_free_thread_is_used_again(crew: ThreadCrew) -> None:
    done: SimpleQueue[int] = SimpleQueue()
    free = threading.Event()
    for number in range(5):
        crew.submit(done.put, number)
        assert done.get(timeout=5) == number
        # It counts as free a moment after it has done its work.
        for _ in range(500):
            if crew._unclaimed < 0 or len(crew) > 1:
                break
            free.wait(0.01)
    assert len(crew) == 1


def test_there_are_never_more_threads_than_allowed(crew: ThreadCrew) -> None:
    go, started = threading.Event(), threading.Semaphore(0)
    done: SimpleQueue[str] = SimpleQueue()

    def work() -> None:
        started.release()
        go.wait(10)
        done.put(threading.current_thread().name)

    for _ in range(10):
        crew.submit(work)
    assert all(started.acquire(timeout=5) for _ in range(3))
    assert not started.acquire(blocking=False)
    go.set()
    names = {done.get(timeout=5) for _ in range(10)}
    assert len(names) <= 3
    assert len(crew) == 3


def test_a_failure_does_not_end_the_thread(
    crew: ThreadCrew, caplog: pytest.LogCaptureFixture
) -> None:
    done: SimpleQueue[str] = SimpleQueue()

    def fail() -> None:
        raise ValueError("wrong")

    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            crew.submit(fail)
        crew.submit(done.put, "done")
        assert done.get(timeout=5) == "done"
    assert "failed" in caplog.text


def test_closing_lets_work_be_finished() -> None:
    crew = ThreadCrew("closing", 1)
    done: list[int] = []
    for number in range(20):
        crew.submit(done.append, number)
    crew.close(5)
    assert done == list(range(20))


def test_finished_work_is_not_kept_alive(crew: ThreadCrew) -> None:
    class Job:
        pass

    done = threading.Event()
    job = Job()
    reference = weakref.ref(job)
    crew.submit(lambda _: None, job)
    crew.close(5)
    done.set()
    del job
    assert reference() is None


class _Batches:
    """Work that notes its batches, and waits in the first until it may go on."""

    def __init__(self) -> None:
        self.seen: SimpleQueue[list[int]] = SimpleQueue()
        self.go = threading.Event()
        self.again: list[int] = []

    def work(self, items: list[int]) -> list[int]:
        self.seen.put(list(items))
        self.go.wait(10)
        again, self.again = self.again, []
        return again


@pytest.fixture
def batches() -> _Batches:
    return _Batches()


@pytest.fixture
def batch_thread(batches: _Batches) -> Iterator[BatchThread[int]]:
    thread = BatchThread("test-batches", batches.work, interval=0.0, retry_after=0.01)
    yield thread
    batches.go.set()
    thread.close(5)


def test_what_comes_in_meanwhile_is_worked_on_together(
    batch_thread: BatchThread[int], batches: _Batches
) -> None:
    assert len(batch_thread) == 0
    batch_thread.put(1)
    assert batches.seen.get(timeout=5) == [1]
    for number in (2, 3, 4):
        batch_thread.put(number)
    batches.go.set()
    assert batches.seen.get(timeout=5) == [2, 3, 4]
    assert len(batch_thread) == 1


def test_what_is_handed_back_comes_first_in_the_next_batch(
    batch_thread: BatchThread[int], batches: _Batches
) -> None:
    batches.again = [1]
    batch_thread.put(1)
    batches.seen.get(timeout=5)
    batch_thread.put(2)
    batches.go.set()
    assert batches.seen.get(timeout=5) == [1, 2]


def test_what_is_handed_back_does_not_wait_for_more_to_come_in(
    batch_thread: BatchThread[int], batches: _Batches
) -> None:
    batches.again = [1]
    batches.go.set()
    batch_thread.put(1)
    assert [batches.seen.get(timeout=5) for _ in range(2)] == [[1], [1]]


def test_batches_keep_their_distance(batches: _Batches) -> None:
    batches.go.set()
    thread = BatchThread("test-distance", batches.work, interval=0.5)
    thread.put(1)
    assert batches.seen.get(timeout=5) == [1]
    for number in (2, 3):
        thread.put(number)
    assert batches.seen.get(timeout=5) == [2, 3]
    thread.close(5)


def test_a_batch_that_fails_does_not_end_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    seen: SimpleQueue[int] = SimpleQueue()

    def work(items: list[int]) -> list[int]:
        seen.put(items[0])
        raise ValueError("wrong")

    thread = BatchThread("test-failing", work, interval=0.0)
    for number in (1, 2):
        thread.put(number)
        assert seen.get(timeout=5) == number
    thread.close(5)
    assert "test-failing failed" in caplog.text


def test_closing_lets_a_batch_be_finished(batches: _Batches) -> None:
    thread = BatchThread("test-closing", batches.work, interval=0.01)
    batches.go.set()
    for number in range(20):
        thread.put(number)
    thread.close(5)
    done = [number for _ in range(batches.seen.qsize()) for number in batches.seen.get()]
    assert done == list(range(20))


async def test_a_call_gives_what_the_function_returns_or_raises(crew: ThreadCrew) -> None:
    assert await crew.call(pow, 2, 5) == 32
    with pytest.raises(ZeroDivisionError):
        await crew.call(divmod, 1, 0)


async def test_a_call_that_is_cancelled_lets_its_function_end(crew: ThreadCrew) -> None:
    go, ended = threading.Event(), threading.Event()
    started, loop = asyncio.Event(), asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(started.set)
        go.wait(10)
        ended.set()

    call = asyncio.ensure_future(crew.call(work))
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    go.set()
    assert ended.wait(10)


def test_a_call_whose_loop_is_gone_ends_in_silence(
    crew: ThreadCrew, caplog: pytest.LogCaptureFixture
) -> None:
    go, ended = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(10)
        ended.set()

    async def leave_it() -> None:
        call = asyncio.ensure_future(crew.call(work))
        await asyncio.sleep(0)
        call.cancel()

    asyncio.run(leave_it())
    go.set()
    assert ended.wait(10)
    crew.close(5)
    assert not caplog.records
