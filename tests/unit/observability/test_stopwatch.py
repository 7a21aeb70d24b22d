"""Where a turn's time went."""

import asyncio

import pytest

from clasper_worker.observability.stopwatch import Stopwatch, spent_on, start_stopwatch


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_each_part_is_summed_and_the_whole_goes_on() -> None:
    clock = Clock()
    watch = Stopwatch(2.5, clock)
    for seconds in (1.0, 2.0):
        with watch.of("model"):
            clock.now += seconds
        clock.now += 0.25
    assert watch.told() == {
        "total": 3.5, "queue": 2.5, "model": 3.0, "tools": 0.0, "backend": 0.0
    }  # fmt: skip


def test_what_a_tool_asks_of_the_backend_is_the_tools_time_alone() -> None:
    clock = Clock()
    watch = Stopwatch(None, clock)
    with watch.of("tools"):
        with watch.of("backend"):
            clock.now += 1.0
        clock.now += 1.0
    with watch.of("backend"):
        clock.now += 4.0
    assert (watch.told()["tools"], watch.told()["backend"]) == (2.0, 4.0)
    assert watch.told()["queue"] is None


def test_a_part_that_fails_is_counted_too() -> None:
    clock = Clock()
    watch = Stopwatch(None, clock)

    def fail() -> None:
        with watch.of("model"):
            clock.now += 1.0
            raise OSError("down")

    with pytest.raises(OSError, match="down"):
        fail()
    assert watch.told()["model"] == 1.0


async def test_turns_side_by_side_have_a_watch_each() -> None:
    async def turn(steps: int) -> Stopwatch:
        watch = start_stopwatch(None)
        for _ in range(steps):
            with spent_on("model"):
                await asyncio.sleep(0)
        return watch

    async with asyncio.TaskGroup() as group:
        busy, idle = group.create_task(turn(100)), group.create_task(turn(0))
    assert busy.result()._spent["model"] > 0
    assert "model" not in idle.result()._spent


def test_without_a_turn_nothing_is_counted() -> None:
    with spent_on("backend"):
        pass
