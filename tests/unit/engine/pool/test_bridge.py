"""From synchronous code into coroutines."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

import pytest
from celery.app.task import Context
from celery.exceptions import SoftTimeLimitExceeded

from clasper_worker.engine.pool.bridge import close_process_loop, process_loop, run_coroutine
from clasper_worker.engine.pool.context import current_job, current_request


@pytest.fixture(autouse=True)
def _closed_afterwards() -> Iterator[None]:
    yield
    close_process_loop()


def test_it_returns_what_the_coroutine_returns() -> None:
    async def body() -> int:
        await asyncio.sleep(0)
        return 42

    assert run_coroutine(body()) == 42


def test_it_raises_what_the_coroutine_raises() -> None:
    async def body() -> None:
        await asyncio.sleep(0)
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        run_coroutine(body())


def test_the_coroutine_knows_its_request_and_the_callers_context() -> None:
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("the caller's")
    request = Context(id="t1", task="clasper.send", retries=2, delivery_info={"redelivered": True})

    async def body() -> tuple[object, ...]:
        await asyncio.sleep(0)
        job = current_job()
        assert job is not None
        return current_request(), job.id, job.name, job.retries, job.redelivered, variable.get()

    assert run_coroutine(body(), request=request) == (
        request,
        "t1",
        "clasper.send",
        2,
        True,
        "the caller's",
    )
    assert current_request() is None


def test_threads_share_one_loop() -> None:
    barrier: list[asyncio.Barrier] = []

    async def meet() -> int:
        if not barrier:
            barrier.append(asyncio.Barrier(4))
        async with asyncio.timeout(10):
            await barrier[0].wait()
        return threading.get_ident()

    with ThreadPoolExecutor(4) as threads:
        idents = list(threads.map(lambda _: run_coroutine(meet()), range(4)))
    assert len(set(idents)) == 1


def test_a_closed_loop_is_replaced_by_a_new_one() -> None:
    first = process_loop()
    close_process_loop()
    assert run_coroutine(asyncio.sleep(0, "again")) == "again"
    assert process_loop() is not first


def test_waiting_on_the_loop_itself_is_refused() -> None:
    async def inner() -> None:
        await asyncio.sleep(0)

    async def outer() -> None:
        await asyncio.sleep(0)
        run_coroutine(inner())

    with pytest.raises(RuntimeError, match="await it"):
        run_coroutine(outer())


@contextmanager
def _alarm(error: BaseException) -> Iterator[Callable[[], None]]:
    """Raise ``error`` in the main thread on SIGALRM, as billiard does at the soft limit."""

    def handler(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise error

    before = signal.signal(signal.SIGALRM, handler)
    try:
        yield lambda: os.kill(os.getpid(), signal.SIGALRM)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_soft_limit_in_the_waiting_thread_reaches_the_coroutine_which_may_catch_it() -> None:
    with _alarm(SoftTimeLimitExceeded()) as ring:

        async def body() -> str:
            asyncio.get_running_loop().call_later(0.05, ring)
            try:
                await asyncio.sleep(60)
            except SoftTimeLimitExceeded:
                await asyncio.sleep(0.05)
                return "said goodbye"
            return "not reached"

        assert run_coroutine(body()) == "said goodbye"


def test_a_soft_limit_that_is_not_caught_ends_the_wait() -> None:
    with _alarm(SoftTimeLimitExceeded()) as ring:

        async def body() -> None:
            asyncio.get_running_loop().call_later(0.05, ring)
            await asyncio.sleep(60)

        with pytest.raises(SoftTimeLimitExceeded):
            run_coroutine(body())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_whatever_else_stops_the_wait_cancels_the_coroutine(error: BaseException) -> None:
    notes: list[str] = []
    with _alarm(error) as ring:

        async def body() -> None:
            asyncio.get_running_loop().call_later(0.05, ring)
            try:
                await asyncio.sleep(60)
            finally:
                notes.append("ended")

        with pytest.raises(type(error)):
            run_coroutine(body())
    assert notes == ["ended"]


def _run_script(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_loop_is_closed_without_a_warning_when_the_interpreter_exits() -> None:
    ran = _run_script(
        """
        import asyncio
        from clasper_worker.engine.pool.bridge import run_coroutine
        from clasper_worker.engine.pool.loop_local import on_loop_close

        async def close():
            print("closed")

        async def body():
            on_loop_close(close)
            asyncio.create_task(asyncio.sleep(60))

        run_coroutine(body())
        """
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "closed\n", "")


def test_a_forked_child_makes_a_loop_of_its_own() -> None:
    ran = _run_script(
        """
        import asyncio, os, warnings
        from clasper_worker.engine.pool.bridge import close_process_loop, run_coroutine

        async def pid():
            return os.getpid()

        assert run_coroutine(pid()) == os.getpid()
        warnings.simplefilter("ignore")  # newer Pythons warn of forking with threads
        child = os.fork()
        if child == 0:
            print(run_coroutine(pid()) == os.getpid(), flush=True)
            close_process_loop()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert run_coroutine(pid()) == os.getpid()
        """
    )
    assert (ran.returncode, ran.stdout) == (0, "True\n"), ran.stderr


def test_importing_starts_nothing() -> None:
    ran = _run_script(
        """
        import threading
        import clasper_worker.engine.pool.pool
        import clasper_worker.engine.pool.setup
        print(threading.active_count())
        """
    )
    assert ran.stdout == "1\n", ran.stderr
