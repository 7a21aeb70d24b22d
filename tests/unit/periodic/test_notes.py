"""Claims, locks and notes that all workers share."""

import asyncio

from clasper_worker.periodic.notes import Slots


async def test_a_slot_is_the_first_ones_and_stays_so_when_that_one_comes_again(
    slots: Slots,
) -> None:
    assert await slots.claim("a", "one", 60)
    assert not await slots.claim("a", "two", 60)
    assert await slots.claim("a", "one", 60)
    assert await slots.claim("b", "two", 60)


async def test_of_many_at_once_one_gets_the_slot(slots: Slots) -> None:
    got = await asyncio.gather(*(slots.claim("a", str(number), 60) for number in range(50)))
    assert sum(got) == 1


async def test_a_released_slot_is_free_but_nobody_releases_anothers(slots: Slots) -> None:
    await slots.claim("a", "one", 60)
    await slots.release("a", "two")
    assert not await slots.claim("a", "two", 60)
    await slots.release("a", "one")
    assert await slots.claim("a", "two", 60)


async def test_a_lock_is_held_by_one_and_free_after_its_block(slots: Slots) -> None:
    async with slots.lock("x", "one") as mine:
        async with slots.lock("x", "two") as other:
            assert (mine, other) == (True, False)
        async with slots.lock("x", "two") as other:
            assert other is False
    async with slots.lock("x", "two") as later:
        assert later


async def test_notes_are_read_together_and_new_ones_leave_old_ones_alone(slots: Slots) -> None:
    await slots.write(["a"], "old", 60)
    await slots.write(["a", "b"], "new", 60, only_new=True)
    assert await slots.read(["a", "b", "c"]) == ["old", "new", None]
    await slots.write(["a"], "newer", 60)
    assert await slots.read(["a"]) == ["newer"]
    assert await slots.read([]) == []
