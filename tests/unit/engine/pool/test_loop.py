"""An event loop in its own thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from clasper_worker.engine.pool.loop import LoopThread
from clasper_worker.engine.pool.loop_local import on_loop_close


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread("test-loop")
    yield thread
    thread.close()


def _start(thread: LoopThread, coro: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run_coroutine_threadsafe(coro, thread.loop)


async def _wait(started: threading.Event, notes: list[str], cleanup: float = 0.0) -> None:
    started.set()
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(cleanup)
        notes.append("cleaned up")
        raise


def test_it_runs_coroutines_in_its_own_thread(thread: LoopThread) -> None:
    async def name() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    assert _start(thread, name()).result(10) == "test-loop"
    assert thread.is_alive()
    assert not thread.is_current()
    assert thread.implementation in {"uvloop", "asyncio"}


def test_closing_cancels_what_runs(thread: LoopThread) -> None:
    started, notes = threading.Event(), list[str]()
    _start(thread, _wait(started, notes))
    assert started.wait(10)
    thread.close()
    assert notes == ["cleaned up"]
    assert not thread.is_alive()
    assert thread.loop.is_closed()


def test_closing_does_not_cut_off_the_cleaning_up_of_what_was_cancelled_before(
    thread: LoopThread,
) -> None:
    started, notes = threading.Event(), list[str]()
    running = _start(thread, _wait(started, notes, cleanup=0.05))
    assert started.wait(10)
    running.cancel()
    thread.close()
    assert notes == ["cleaned up"]


def test_closing_runs_the_loops_hooks_after_its_tasks(thread: LoopThread) -> None:
    started, notes = threading.Event(), list[str]()

    async def close() -> None:
        await asyncio.sleep(0)
        notes.append("closed")

    async def use() -> None:
        on_loop_close(close)
        await _wait(started, notes)

    _start(thread, use())
    assert started.wait(10)
    thread.close()
    assert notes == ["cleaned up", "closed"]


def test_closing_leaves_behind_what_ignores_it(
    thread: LoopThread, caplog: pytest.LogCaptureFixture
) -> None:
    started = threading.Event()

    async def stubborn() -> None:
        started.set()
        while True:
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    _start(thread, stubborn())
    assert started.wait(10)
    thread.close(timeout=0.5)
    assert "ignored its cancellation" in caplog.text
    assert not thread.is_alive()


def test_closing_again_does_nothing(thread: LoopThread) -> None:
    thread.close()
    thread.close()
    assert not thread.is_alive()
