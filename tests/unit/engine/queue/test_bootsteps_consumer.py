"""Sending monitoring events in batches."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from celery.worker.consumer import Consumer

from clasper_worker.engine.queue.bootsteps import BatchingConsumer


class _Entry:
    canceled = False


class _Hub:
    def __init__(self) -> None:
        self.timers: list[tuple[float, Any, _Entry]] = []

    def call_later(self, delay: float, function: Any) -> _Entry:
        entry = _Entry()
        self.timers.append((delay, function, entry))
        return entry


class _Dispatcher:
    def __init__(self) -> None:
        self.flushes = 0
        self.buffer_limit = 24

    def flush(self) -> None:
        self.flushes += 1


@pytest.fixture
def consumer() -> BatchingConsumer:
    consumer: BatchingConsumer = BatchingConsumer.__new__(BatchingConsumer)
    consumer._flush_timer = None
    consumer.hub = _Hub()
    consumer.event_dispatcher = _Dispatcher()
    return consumer


def test_many_events_are_one_flush_a_moment_later(consumer: BatchingConsumer) -> None:
    for _ in range(3):
        consumer.on_send_event_buffered()
    assert [delay for delay, _, _ in consumer.hub.timers] == [consumer.event_delay]
    assert consumer.event_dispatcher.flushes == 0
    consumer.hub.timers[0][1]()
    assert consumer.event_dispatcher.flushes == 1


def test_a_burst_is_not_cut_up_by_celerys_own_limit(consumer: BatchingConsumer) -> None:
    consumer.on_send_event_buffered()
    assert consumer.event_dispatcher.buffer_limit == consumer.event_batch > 24


def test_events_after_a_flush_are_flushed_as_well(consumer: BatchingConsumer) -> None:
    consumer.on_send_event_buffered()
    consumer.hub.timers[0][1]()
    consumer.on_send_event_buffered()
    assert len(consumer.hub.timers) == 2


def test_a_timer_that_was_cancelled_with_its_connection_is_replaced(
    consumer: BatchingConsumer,
) -> None:
    consumer.on_send_event_buffered()
    consumer.hub.timers[0][2].canceled = True
    consumer.on_send_event_buffered()
    assert len(consumer.hub.timers) == 2


def test_a_shutdown_sends_what_is_buffered(
    consumer: BatchingConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(consumer.event_dispatcher, "flush", lambda: order.append("flush"))
    monkeypatch.setattr(Consumer, "shutdown", lambda _: order.append("shutdown"))
    consumer.on_send_event_buffered()
    consumer.shutdown()
    assert order == ["flush", "shutdown"]


def test_without_a_hub_there_is_no_buffer(consumer: BatchingConsumer) -> None:
    consumer.hub = None
    consumer.on_send_event_buffered()
    assert consumer._flush_timer is None


def test_from_another_thread_the_timer_is_set_on_the_consumers_thread(
    consumer: BatchingConsumer,
) -> None:
    soon: list[Any] = []
    consumer.hub.call_soon = soon.append
    consumer._thread = threading.get_ident()
    sender = threading.Thread(target=consumer.on_send_event_buffered)
    sender.start()
    sender.join(60)
    assert consumer.hub.timers == []
    (callback,) = soon
    callback()
    assert len(consumer.hub.timers) == 1
