"""The consumer's event loop: no callback is lost through another's error."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from celery.concurrency.prefork import _run_ready_callbacks
from celery.exceptions import WorkerShutdown
from kombu.asynchronous.timer import Timer
from redis.exceptions import ReadOnlyError

from clasper_worker.engine.pool.hub import SteadyHub


@pytest.fixture
def hub() -> Iterator[SteadyHub]:
    hub = SteadyHub(Timer())
    yield hub
    hub._ready.clear()
    hub.close()


def fill(hub: SteadyHub, error: BaseException, ran: list[int]) -> None:
    """Twenty callbacks of which each fifth raises: whatever order the set has, some are behind."""

    def fail() -> None:
        raise error

    for number in range(20):
        hub.call_soon(ran.append, number)
        if number % 5 == 0:
            hub.call_soon(fail)


def test_all_callbacks_run_and_then_the_error_is_raised(hub: SteadyHub) -> None:
    ran: list[int] = []
    fill(hub, ReadOnlyError("a replica"), ran)
    with pytest.raises(ReadOnlyError):
        next(hub.create_loop())
    assert sorted(ran) == list(range(20))


def test_all_callbacks_run_when_the_hub_is_reset_which_does_not_fail(hub: SteadyHub) -> None:
    ran: list[int] = []
    fill(hub, ReadOnlyError("a replica"), ran)
    hub.reset()
    assert sorted(ran) == list(range(20))


def test_the_end_of_the_worker_passes_and_leaves_the_rest_for_its_last_turn(hub: SteadyHub) -> None:
    ran: list[int] = []
    fill(hub, WorkerShutdown(0), ran)
    for _ in itertools.repeat(None, 4):
        with pytest.raises(WorkerShutdown):
            next(hub.create_loop())
    hub.reset()
    assert sorted(ran) == list(range(20))


def test_celery_finds_the_acknowledgements_among_them(hub: SteadyHub) -> None:
    hub.call_soon(lambda: None)
    _run_ready_callbacks(hub)
    assert len(hub._ready) == 1


def test_a_signal_handler_that_interrupts_the_hub_adds_and_takes_callbacks(hub: SteadyHub) -> None:
    ran: list[int] = []
    with hub._ready_lock:  # where the handler of a shutdown's signal may interrupt it
        hub.call_soon(ran.append, 1)
        for callback in hub._pop_ready():
            callback()
    assert ran == [1]
