"""Getting back to the consumer's thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from celery.exceptions import WorkerShutdown
from kombu.asynchronous import Hub

from clasper_worker.engine.pool.consumer_thread import ConsumerThread


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


def _fail() -> None:
    raise ValueError("wrong")


def test_what_is_posted_from_other_threads_runs_on_the_hubs_in_order(hub: Hub) -> None:
    consumer = ConsumerThread()
    consumer.attach(hub)
    hub.run_once()  # makes the waker
    seen: list[tuple[int, int]] = []

    def post() -> None:
        for number in range(50):
            consumer.post(lambda number=number: seen.append((number, threading.get_ident())))

    thread = threading.Thread(target=post)
    thread.start()
    thread.join()
    assert seen == []
    hub.run_once()
    hub.run_once()
    assert seen == [(number, threading.get_ident()) for number in range(50)]


def test_what_was_posted_before_there_was_a_hub_is_not_lost(hub: Hub) -> None:
    consumer = ConsumerThread()
    seen: list[str] = []
    consumer._posts.append((seen.append, ("early",)))
    consumer.attach(hub)
    hub.run_once()
    assert seen == ["early"]


def test_a_failure_does_not_stop_the_others(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    consumer = ConsumerThread()
    consumer.attach(hub)
    seen: list[str] = []
    consumer.post(_fail)
    consumer.post(seen.append, "after")
    consumer.drain()
    assert seen == ["after"]
    assert "reporting a task to Celery failed" in caplog.text


def test_a_shutdown_passes_through_and_loses_nothing(hub: Hub) -> None:
    consumer = ConsumerThread()
    consumer.attach(hub)
    seen: list[str] = []

    def shut_down() -> None:
        raise WorkerShutdown(0)

    consumer.post(shut_down)
    consumer.post(seen.append, "after")
    with pytest.raises(WorkerShutdown):
        hub.run_once()
    for _ in range(2):  # the first ends the loop that was interrupted, the next is a new one's
        hub.run_once()
    assert seen == ["after"]


def test_without_a_hub_it_runs_at_once() -> None:
    consumer = ConsumerThread()
    seen: list[str] = []
    consumer.post(seen.append, "now")
    assert seen == ["now"]


def test_a_turn_fires_timers_too(hub: Hub) -> None:
    consumer = ConsumerThread()
    consumer.attach(hub)
    seen: list[str] = []
    hub.timer.call_after(0, seen.append, ("timer",))
    consumer.post(seen.append, "post")
    consumer.turn()
    assert seen == ["post", "timer"]


def test_a_turn_survives_a_timer_that_fails(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    consumer = ConsumerThread()
    consumer.attach(hub)

    def fail_hard() -> None:
        raise AssertionError("passes through the hub's own handling")

    hub.timer.call_after(0, fail_hard)
    consumer.turn()
    assert "failed during shutdown" in caplog.text


def test_many_posts_at_once_run_in_order_and_one_that_fails_does_not_stop_the_others() -> None:
    consumer = ConsumerThread()
    seen: list[int] = []

    def note(number: int) -> None:
        if number == 1:
            _fail()
        seen.append(number)

    consumer.post_all(note, [(number,) for number in range(4)])
    assert seen == [0, 2, 3]
