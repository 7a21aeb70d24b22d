"""Stopping a coroutine from outside."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Coroutine
from contextvars import Context, ContextVar
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from clasper_worker.engine.pool.soft_limit import Run, SoftLimitScope


class _Running:
    """A started :class:`Run` and the moment of its end."""

    def __init__(self, coro: Coroutine[Any, Any, Any], context: Context | None = None) -> None:
        self.ends = 0
        self._ended = asyncio.Event()
        self.run = Run(coro, self._on_end)
        self.run.start(asyncio.get_running_loop(), context or Context())

    def _on_end(self) -> None:
        self.ends += 1
        self._ended.set()

    async def end(self) -> Run:
        async with asyncio.timeout(10):
            await self._ended.wait()
        assert self.run.is_done
        assert self.ends == 1
        return self.run


async def _until_waiting() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_run_has_the_coroutines_value() -> None:
    async def body() -> str:
        await asyncio.sleep(0.001)
        return "value"

    run = await _Running(body()).end()
    assert (run.value, run.error) == ("value", None)


async def test_a_run_has_the_coroutines_error() -> None:
    async def body() -> None:
        await asyncio.sleep(0)
        raise ValueError("wrong")

    run = await _Running(body()).end()
    assert isinstance(run.error, ValueError)


async def test_errors_of_awaited_futures_reach_the_coroutine() -> None:
    future = asyncio.get_running_loop().create_future()

    async def body() -> str:
        try:
            await future
        except KeyError as exc:
            return f"caught {exc}"
        return "not reached"

    running = _Running(body())
    await _until_waiting()
    future.set_exception(KeyError("it"))
    assert (await running.end()).value == "caught 'it'"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_an_exit_is_an_error_of_its_coroutine_alone(error: BaseException) -> None:
    async def body() -> None:
        await asyncio.sleep(0)
        raise error

    assert (await _Running(body()).end()).error is error


async def test_the_coroutine_runs_in_the_context_given() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="outer")

    async def body() -> str:
        return variable.get()

    context = Context()
    context.run(variable.set, "inner")
    assert (await _Running(body(), context).end()).value == "inner"


async def test_cancelling_cancels() -> None:
    seen: list[str] = []

    async def body() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    running = _Running(body())
    await _until_waiting()
    running.run.cancel()
    assert isinstance((await running.end()).error, concurrent.futures.CancelledError)
    assert seen == ["cancelled"]


@pytest.mark.parametrize("softly", [False, True])
async def test_a_coroutine_stopped_before_its_first_step_never_runs(softly: bool) -> None:
    seen: list[str] = []

    async def body() -> None:  # it never gets to await
        seen.append("ran")

    running = _Running(body())
    if softly:
        running.run.limit_softly(1.5)
    else:
        running.run.cancel()
    run = await running.end()
    assert seen == []
    expected = SoftTimeLimitExceeded if softly else concurrent.futures.CancelledError
    assert type(run.error) is expected


async def test_the_soft_limit_is_raised_where_the_coroutine_waits() -> None:
    async def body() -> str:
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded as exc:
            return f"caught {exc.args[0]}"
        return "not reached"

    running = _Running(body())
    await _until_waiting()
    running.run.limit_softly(2.5)
    assert (await running.end()).value == "caught 2.5"


async def test_the_soft_limit_that_is_not_caught_is_celerys_own_exception() -> None:
    async def body() -> None:
        await asyncio.sleep(60)

    running = _Running(body())
    await _until_waiting()
    running.run.limit_softly(2.5)
    error = (await running.end()).error
    assert isinstance(error, SoftTimeLimitExceeded)
    assert error.args == (2.5,)
    assert error.__traceback__ is not None


async def test_after_the_soft_limit_timeouts_and_task_groups_work_as_ever() -> None:
    async def fail_soon() -> None:
        await asyncio.sleep(0.001)
        raise ValueError("child")

    async def body() -> list[str]:
        seen: list[str] = []
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded:
            task = asyncio.current_task()
            assert task is not None
            seen.append(f"cancelling {task.cancelling()}")
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(60)
        except TimeoutError:
            seen.append("timeout")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail_soon())
                await asyncio.sleep(60)
        except* ValueError:
            seen.append("group")
        return seen

    running = _Running(body())
    await _until_waiting()
    running.run.limit_softly(1)
    assert (await running.end()).value == ["cancelling 0", "timeout", "group"]


async def test_the_soft_limit_leaves_no_child_of_a_task_group_behind() -> None:
    children: list[str] = []

    async def child() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            children.append("ended")

    async def body() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    running = _Running(body())
    await _until_waiting()
    running.run.limit_softly(1)
    assert type((await running.end()).error) is SoftTimeLimitExceeded
    assert children == ["ended"]


async def test_the_soft_limit_within_a_task_groups_body_is_not_hidden_in_its_group() -> None:
    async def body() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(60))
            await asyncio.sleep(60)

    running = _Running(body())
    await _until_waiting()
    running.run.limit_softly(1)
    assert type((await running.end()).error) is SoftTimeLimitExceeded


async def test_the_soft_limit_counts_more_than_a_child_that_fails_because_of_it() -> None:
    async def child() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise OSError("connection closed") from None

    async def body() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            await asyncio.sleep(60)

    running = _Running(body())
    await _until_waiting()
    running.run.limit_softly(1)
    assert type((await running.end()).error) is SoftTimeLimitExceeded


async def test_the_soft_limit_comes_through_even_where_the_cancellation_is_swallowed() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "went on"
        return "not reached"

    async def body() -> str:
        return await asyncio.create_task(stubborn())

    running = _Running(body())
    await _until_waiting()
    running.run.limit_softly(1)
    assert type((await running.end()).error) is SoftTimeLimitExceeded


async def test_cancelling_after_the_soft_limit_ends_what_overstays() -> None:
    async def body() -> None:
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded:
            await asyncio.sleep(60)

    running = _Running(body())
    await _until_waiting()
    running.run.limit_softly(1)
    await _until_waiting()
    running.run.cancel()
    assert isinstance((await running.end()).error, concurrent.futures.CancelledError)


async def test_a_limit_after_the_end_changes_nothing() -> None:
    async def body() -> str:
        await asyncio.sleep(0)
        return "value"

    running = _Running(body())
    run = await running.end()
    run.limit_softly(1)
    run.cancel()
    await _until_waiting()
    assert (run.value, run.error, running.ends) == ("value", None, 1)


async def _library() -> str:
    """Retries on every Exception, as some clients do."""
    while True:
        try:
            await asyncio.sleep(60)
        except Exception:  # noqa: BLE001  # what is tested
            continue


async def test_within_a_scope_the_soft_limit_passes_what_catches_exceptions() -> None:
    async def body() -> str:
        try:
            async with SoftLimitScope():
                await _library()
        except SoftTimeLimitExceeded as exc:
            task = asyncio.current_task()
            assert task is not None
            return f"limited {exc.args[0]} {task.cancelling()}"
        return "not reached"

    running = _Running(body())
    await _until_waiting()
    running.run.limit_softly(3)
    assert (await running.end()).value == "limited 3 0"


async def test_a_scope_insists_where_the_cancellation_got_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Run, "insist_after", 0.01)
    lost: list[int] = []

    async def body() -> str:
        try:
            async with SoftLimitScope():
                while True:
                    try:
                        await asyncio.sleep(60)
                    except asyncio.CancelledError:
                        lost.append(1)
                        if len(lost) == 3:
                            raise
        except SoftTimeLimitExceeded:
            task = asyncio.current_task()
            assert task is not None
            await asyncio.sleep(0.05)  # nothing insists any more
            return f"limited, cancelling {task.cancelling()}"
        return "not reached"

    running = _Running(body())
    await _until_waiting()
    running.run.limit_softly(3)
    assert (await running.end()).value == "limited, cancelling 0"


async def test_a_run_tells_where_it_waits() -> None:
    async def inner() -> None:
        await asyncio.sleep(60)

    async def body() -> None:
        await inner()

    running = _Running(body())
    await _until_waiting()
    assert running.run.place.endswith(" sleep")
    running.run.cancel()
    await running.end()


async def test_a_scope_says_so_where_the_cancellation_became_another_error() -> None:
    async def body() -> None:
        async with SoftLimitScope():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise OSError("connection closed") from None

    running = _Running(body())
    await _until_waiting()
    running.run.limit_softly(3)
    error = (await running.end()).error
    assert isinstance(error, SoftTimeLimitExceeded)
    assert isinstance(error.__cause__, OSError)


async def test_a_scope_lets_other_errors_and_cancellations_be() -> None:
    async def fails() -> None:
        async with SoftLimitScope():
            raise ValueError("its own")

    async def waits() -> None:
        async with SoftLimitScope():
            await asyncio.sleep(60)

    assert isinstance((await _Running(fails()).end()).error, ValueError)
    running = _Running(waits())
    await _until_waiting()
    running.run.cancel()
    assert isinstance((await running.end()).error, concurrent.futures.CancelledError)


async def test_after_its_scope_the_soft_limit_is_the_exception_again() -> None:
    async def body() -> str:
        async with SoftLimitScope():
            await asyncio.sleep(0)
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded:
            return "caught"
        return "not reached"

    running = _Running(body())
    await asyncio.sleep(0.01)
    running.run.limit_softly(1)
    assert (await running.end()).value == "caught"


async def test_a_scope_without_a_run_does_nothing() -> None:
    async with SoftLimitScope():
        await asyncio.sleep(0)
