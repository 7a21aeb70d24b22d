"""Notes of a dispatcher that shares no Redis."""

from clasper_worker.periodic.notes import OwnNotes


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_note_lasts_as_long_as_it_was_meant_to() -> None:
    clock = Clock()
    notes = OwnNotes(clock=clock)
    await notes.write(["a", "b"], "one", 10)
    await notes.write(["b", "c"], "two", 20, only_new=True)
    assert await notes.read(["a", "b", "c", "d"]) == ["one", "one", "two", None]
    clock.now += 10
    assert await notes.read(["a", "b", "c"]) == [None, None, "two"]
    await notes.write(["c"], "three", 1)
    assert await notes.read(["c"]) == ["three"]


async def test_a_lock_is_held_once_and_free_afterwards() -> None:
    notes = OwnNotes()
    async with notes.lock("dispatch", "a") as first, notes.lock("dispatch", "b") as second:
        assert (first, second) == (True, False)
    async with notes.lock("dispatch", "b") as third:
        assert third
