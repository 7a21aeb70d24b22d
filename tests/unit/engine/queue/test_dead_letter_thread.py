"""The thread that reports dead letters, with reports that fail, or that do not come back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from clasper_worker.engine.queue.dead_letter_thread import DeadLetterThread
from clasper_worker.engine.queue.scheduler_types import Burial
from tests.waiting import until

SECONDS = 60.0


def letter(name: str) -> Burial:
    return Burial(name, f"job-{name}", "lost its worker (3 times)")


class Callers:
    """Who is told: knows what it was told of, and may let the report hang, or fail it."""

    def __init__(self) -> None:
        self.told: list[Burial] = []
        self.noted: list[Burial] = []
        self.interrupted: list[tuple[str, ...]] = []
        self.errors: list[Exception] = []
        self.threads: set[str] = set()
        self.reached = threading.Event()
        self.free = threading.Event()
        self.free.set()

    def report(self, buried: Iterable[Burial]) -> Iterable[Burial]:
        self.threads.add(threading.current_thread().name)
        self.reached.set()
        self.free.wait(SECONDS)
        if self.errors:
            raise self.errors.pop(0)
        known = list(buried)
        self.told += known
        return known

    def note(self, known: Iterable[Burial]) -> None:
        self.noted += known

    def interrupt(self, jobs: Sequence[str]) -> None:
        self.interrupted.append(tuple(jobs))


@pytest.fixture
def callers() -> Iterator[Callers]:
    made = Callers()
    yield made
    made.free.set()


@pytest.fixture
def thread(callers: Callers) -> Iterator[DeadLetterThread]:
    made = DeadLetterThread(callers.report, callers.note, callers.interrupt)
    made.start()
    yield made
    callers.free.set()
    made.close(SECONDS)


def test_dead_letters_are_reported_on_its_own_thread_and_noted(
    thread: DeadLetterThread, callers: Callers
) -> None:
    thread.dead_letters([letter("a"), letter("b")])
    until(lambda: len(callers.noted) == 2)
    assert callers.told == callers.noted == [letter("a"), letter("b")]
    assert callers.threads == {"clasper-dead-letters"}


def test_who_hands_in_never_waits_for_a_report_that_hangs(
    thread: DeadLetterThread, callers: Callers
) -> None:
    callers.free.clear()
    thread.dead_letters([letter("a")])
    assert callers.reached.wait(SECONDS)
    thread.dead_letters([letter("b")])
    thread.interrupts(["job"])
    assert (callers.told, callers.interrupted) == ([], [])  # and yet we got here


def test_what_is_found_again_while_it_waits_is_reported_once(
    thread: DeadLetterThread, callers: Callers
) -> None:
    callers.free.clear()
    for _ in range(50):
        thread.dead_letters([letter("a"), letter("b")])
    assert callers.reached.wait(SECONDS)
    thread.dead_letters([letter("a"), letter("b")])
    callers.free.set()
    until(lambda: len(callers.noted) == 2)
    thread.close(SECONDS)
    assert callers.told == [letter("a"), letter("b")]


def test_one_that_could_not_be_reported_is_not_noted_and_is_reported_when_it_is_found_again(
    thread: DeadLetterThread, callers: Callers
) -> None:
    callers.errors = [RedisConnectionError("gone")]
    thread.dead_letters([letter("a"), letter("b")])
    until(lambda: callers.noted == [letter("b")])

    def again() -> bool:
        thread.dead_letters([letter("a")])
        return letter("a") in callers.noted

    until(again)


def test_interrupts_come_before_dead_letters_that_wait(
    thread: DeadLetterThread, callers: Callers
) -> None:
    order: list[str] = []
    callers.free.clear()
    thread.dead_letters([letter("a")])
    assert callers.reached.wait(SECONDS)
    thread.dead_letters([letter("b")])
    thread.call(order.append, "first")
    thread.call(lambda: order.append(f"told {len(callers.told)}"))
    callers.free.set()
    until(lambda: len(callers.told) == 2)
    assert order == ["first", "told 1"]


def test_an_interrupt_that_fails_ends_nothing(thread: DeadLetterThread, callers: Callers) -> None:
    def fail() -> None:
        raise RedisConnectionError("gone")

    thread.call(fail)
    thread.interrupts(["a", "b"])
    until(lambda: callers.interrupted == [("a", "b")])


def test_closing_reports_what_waits_first(thread: DeadLetterThread, callers: Callers) -> None:
    thread.dead_letters([letter(str(number)) for number in range(100)])
    thread.close(SECONDS)
    assert len(callers.noted) == 100


def test_closing_does_not_wait_for_a_report_that_hangs(
    thread: DeadLetterThread, callers: Callers
) -> None:
    callers.free.clear()
    thread.dead_letters([letter("a"), letter("b")])
    assert callers.reached.wait(SECONDS)
    thread.close(0.01)
    callers.free.set()
    until(lambda: callers.told == [letter("a")])


def test_many_threads_may_hand_in_at_once(thread: DeadLetterThread, callers: Callers) -> None:
    start = threading.Barrier(8)

    def hand_in(first: int) -> None:
        start.wait(SECONDS)
        for number in range(first, first + 100):
            thread.dead_letters([letter(str(number % 200))])

    work: Callable[[int], threading.Thread] = lambda first: threading.Thread(  # noqa: E731
        target=hand_in, args=(first,)
    )
    threads = [work(50 * number) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(SECONDS)
    until(lambda: len(set(callers.noted)) == 200)
