"""A forked child, as prefork's are, has nothing of what belongs to its parent's process."""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
from collections.abc import Callable

import pytest

from clasper_worker.engine.pool.bridge import close_process_loop, run_coroutine
from clasper_worker.engine.pool.loop_local import LoopLocal, on_loop_close
from clasper_worker.engine.queue import delivery

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def in_child(check: Callable[[], object]) -> int:
    """Run it in a forked child; its exit code."""
    child = os.fork()
    if not child:
        try:
            check()
        except BaseException:  # noqa: BLE001 - a child must end here
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_lock_that_a_thread_of_the_parents_holds_is_free_in_the_child() -> None:
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with delivery._child_schedule._lock:
            held.set()
            free.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)

    def check() -> None:
        assert delivery._child_schedule._lock.acquire(timeout=5)

    try:
        assert in_child(check) == 0
    finally:
        free.set()
        thread.join(60)


def test_the_child_makes_what_belongs_to_loops_anew_and_closes_nothing_of_its_parents() -> None:
    closed: list[int] = []
    made: list[int] = []

    async def make() -> int:
        made.append(os.getpid())
        return os.getpid()

    async def close(_: int) -> None:
        closed.append(os.getpid())

    local: LoopLocal[int] = LoopLocal(make, close=close)

    async def use() -> int:
        on_loop_close(lambda: asyncio.sleep(0))
        return await local.get()

    assert run_coroutine(use()) == os.getpid()
    parent = os.getpid()

    def check() -> None:
        assert len(local._values) == 0
        assert run_coroutine(use()) == os.getpid() != parent
        close_process_loop()
        assert closed == [os.getpid()]

    try:
        assert in_child(check) == 0
        assert made == [parent]
        assert run_coroutine(use()) == parent
    finally:
        close_process_loop()
