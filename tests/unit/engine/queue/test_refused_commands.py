"""A worker whose Redis user lacks rights."""

from __future__ import annotations

import logging

import pytest
from redis.exceptions import NoPermissionError

from clasper_worker.engine.queue import bootsteps as module
from clasper_worker.engine.queue.bootsteps import TurnConsumer


def test_the_command_is_named_and_the_wait_grows(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waited: list[float] = []
    clock = [0.0]

    class Time:
        @staticmethod
        def monotonic() -> float:
            return clock[0]

        @staticmethod
        def sleep(seconds: float) -> None:
            clock[0] += seconds

    monkeypatch.setattr(module, "time", Time)
    consumer = TurnConsumer.__new__(TurnConsumer)
    refusal = NoPermissionError("this user has no permissions to run the 'evalsha' command")
    caplog.set_level(logging.ERROR)
    for _ in range(7):
        before = clock[0]
        consumer.on_connection_error_after_connected(refusal)
        waited.append(round(clock[0] - before))
    assert waited == [1, 2, 4, 8, 16, 30, 30]
    assert "'evalsha'" in caplog.text
    assert "docs/redis.md" in caplog.text
