"""What belongs to one event loop."""

from __future__ import annotations

import asyncio
import logging

import pytest

from clasper_worker.engine.pool.loop_local import LoopLocal, close_resources, on_loop_close


class _Maker:
    """Makes numbered values, and notes which were closed."""

    def __init__(self) -> None:
        self.made = 0
        self.closed: list[int] = []
        self.failures = 0

    async def make(self) -> int:
        await asyncio.sleep(0.001)
        if self.failures:
            self.failures -= 1
            raise OSError("not now")
        self.made += 1
        return self.made

    async def close(self, value: int) -> None:
        await asyncio.sleep(0)
        self.closed.append(value)


def test_each_loop_has_its_own_value() -> None:
    maker = _Maker()
    local = LoopLocal(maker.make, maker.close)

    async def use() -> tuple[int, int]:
        values = await local.get(), await local.get()
        await close_resources()
        return values

    assert asyncio.run(use()) == (1, 1)
    assert asyncio.run(use()) == (2, 2)
    assert maker.closed == [1, 2]


async def test_callers_at_the_same_time_share_one_making() -> None:
    maker = _Maker()
    local = LoopLocal(maker.make)
    assert await asyncio.gather(*(local.get() for _ in range(5))) == [1] * 5


async def test_a_caller_that_is_cancelled_does_not_undo_the_making_for_others() -> None:
    maker = _Maker()
    local = LoopLocal(maker.make)
    impatient = asyncio.create_task(local.get())
    patient = asyncio.create_task(local.get())
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == 1


async def test_a_making_that_failed_is_tried_again() -> None:
    maker = _Maker()
    maker.failures = 1
    local = LoopLocal(maker.make)
    with pytest.raises(OSError, match="not now"):
        await local.get()
    assert await local.get() == 1


async def test_after_closing_the_value_is_made_anew() -> None:
    maker = _Maker()
    local = LoopLocal(maker.make, maker.close)
    assert await local.get() == 1
    await close_resources()
    assert await local.get() == 2
    await close_resources()
    assert maker.closed == [1, 2]


async def test_hooks_run_newest_first_and_once() -> None:
    order: list[str] = []

    async def note(text: str) -> None:
        await asyncio.sleep(0)
        order.append(text)

    on_loop_close(lambda: note("first"))
    on_loop_close(lambda: note("second"))
    await close_resources()
    await close_resources()
    assert order == ["second", "first"]


async def test_a_hook_that_fails_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[str] = []

    async def fine() -> None:
        await asyncio.sleep(0)
        done.append("fine")

    async def broken() -> None:
        await asyncio.sleep(0)
        raise OSError("broken")

    on_loop_close(fine)
    on_loop_close(broken)
    await close_resources()
    assert done == ["fine"]
    assert "closing a resource failed" in caplog.text


async def test_a_hook_that_hangs_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    on_loop_close(lambda: asyncio.sleep(0))
    on_loop_close(lambda: asyncio.sleep(60))
    with caplog.at_level(logging.WARNING):
        await close_resources(timeout=0.01)
    assert "1 left open" in caplog.text


def test_a_hook_needs_a_running_loop() -> None:
    with pytest.raises(RuntimeError):
        on_loop_close(lambda: asyncio.sleep(0))
