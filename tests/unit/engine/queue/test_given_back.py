"""What several threads give back while the consumer's exchanges it."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from clasper_worker.engine.queue.exchange import _GivenBack
from clasper_worker.engine.queue.leftovers import Left, Leftovers

THREADS, EACH = 8, 2000


@pytest.fixture(autouse=True)
def quick_switches() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_each_token_is_taken_exactly_once_whichever_threads_give_back_and_take() -> None:
    given = _GivenBack()
    start = threading.Barrier(THREADS + 1)

    def give(number: int) -> None:
        start.wait(60)
        for count in range(EACH):
            kind = ("settled", "released", "lost")[count % 3]
            given.add(**{kind: (f"{kind}-{number}-{count}#1",)})

    threads = [threading.Thread(target=give, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    seen: Counter[str] = Counter()
    start.wait(60)
    rounds = 0
    while any(thread.is_alive() for thread in threads) or given:
        taken = given.take()
        rounds += 1
        if rounds % 3 == 0:  # an exchange that failed: what was taken goes back
            given.add(**taken)
            continue
        for kind, tokens in taken.items():
            assert all(token.startswith(kind) for token in tokens)
            seen.update(tokens)
    assert len(seen) == THREADS * EACH
    assert set(seen.values()) == {1}


def test_what_waits_is_taken_by_its_kind_and_then_nothing_waits() -> None:
    given = _GivenBack()
    assert not given
    given.add(settled=["a#1"], released=["b#1", "c#1"], lost=["d#1"])
    assert given
    assert given.take() == {"settled": ["a#1"], "released": ["b#1", "c#1"], "lost": ["d#1"]}
    assert not given


def test_a_signal_handler_that_interrupts_its_own_thread_gives_back() -> None:
    given, left = _GivenBack(), Leftovers()
    with given._lock, left._lock:
        given.add(settled=["a#1"])
        assert given.take()["settled"] == ["a#1"]
        left.leave(Left(released=["b#1"]))
        assert left.take().released == ["b#1"]
