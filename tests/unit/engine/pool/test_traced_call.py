"""An outcome at hand."""

from __future__ import annotations

import time

import pytest

from clasper_worker.engine.pool.traced_call import SettledCall, settling, tracer_clock


def test_the_outcome_is_given_once_and_to_its_task_only() -> None:
    task, other = object(), object()
    call = SettledCall(task, "value", None, 1.0, 2.0)
    assert call.is_for(task)
    assert not call.is_for(other)
    assert call.give() == "value"
    assert not call.is_for(task)


def test_an_error_is_raised() -> None:
    error = ValueError("wrong")
    with pytest.raises(ValueError, match="wrong") as caught:
        SettledCall(object(), None, error, 1.0, 2.0).give()
    assert caught.value is error


def test_the_tracers_clock_shows_begin_and_then_end() -> None:
    settling.call = SettledCall(object(), None, None, 10.0, 12.0)
    try:
        assert [tracer_clock() for _ in range(3)] == [10.0, 12.0, 12.0]
    finally:
        settling.call = None


def test_without_a_call_it_is_the_real_clock() -> None:
    before = time.monotonic()
    assert before <= tracer_clock() <= time.monotonic()


def test_a_call_knows_that_its_own_value_is_stored() -> None:
    call = SettledCall(object(), "value", None, 1.0, 2.0, "t1")
    assert call.has_stored("t1", "SUCCESS")
    assert not call.has_stored("t1", "FAILURE")
    assert not call.has_stored("t2", "SUCCESS")
    assert not SettledCall(object(), "value", None, 1.0, 2.0).has_stored("t1", "SUCCESS")
