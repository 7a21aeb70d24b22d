"""A caller's trace is read as W3C says, and passed on; what is no trace is left out."""

from __future__ import annotations

import asyncio
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.observability.trace_context import TraceContext, current_trace, enter_trace

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{PARENT}-01"


def test_a_traceparent_is_read_and_written_alike() -> None:
    trace = TraceContext.read(GIVEN)
    assert trace == TraceContext(TRACE, PARENT, is_sampled=True)
    assert trace.traceparent == GIVEN


def test_a_caller_that_does_not_record_stays_one() -> None:
    trace = TraceContext.read(f"00-{TRACE}-{PARENT}-00")
    assert trace is not None
    assert trace.traceparent.endswith("-00")


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    trace = TraceContext.read(f"01-{TRACE}-{PARENT}-01-what-ever")
    assert trace is not None
    assert trace.trace_id == TRACE


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "",
        GIVEN.upper(),
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"{GIVEN}-more",
        f"01-{TRACE}-{PARENT}-01more",
        f"00-{TRACE[:-1]}g-{PARENT}-01",
        f"00-{TRACE}-{PARENT}",
        f"01-{TRACE}-{PARENT}-01-{'x' * 200}",
        GIVEN + "\n",
        GIVEN.replace("4", "٤"),
    ],
)
def test_what_is_no_traceparent_is_none(value: object) -> None:
    assert TraceContext.read(value) is None


@given(st.text(st.sampled_from(string.hexdigits + "-\n\0é"), max_size=80))
def test_whatever_is_read_is_written_in_the_same_form(value: str) -> None:
    trace = TraceContext.read(value)
    if trace is not None:
        assert TraceContext.read(trace.traceparent) == trace


@pytest.mark.parametrize("given_id", [TRACE, TRACE.upper(), "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"])
def test_a_trace_id_alone_is_taken_too(given_id: str) -> None:
    trace = TraceContext.of_trace(given_id)
    assert trace is not None
    assert trace.trace_id == TRACE


@pytest.mark.parametrize("given_id", [None, "", "abc", "0" * 32, "g" * 32, TRACE + "0"])
def test_what_is_no_trace_id_is_none(given_id: str | None) -> None:
    assert TraceContext.of_trace(given_id) is None


async def test_a_trace_is_that_of_the_context_and_of_what_it_starts() -> None:
    async def within(name: str) -> str:
        enter_trace(TraceContext(name * 32))
        await asyncio.sleep(0)
        trace = await asyncio.create_task(_seen())
        assert trace is not None
        return trace.trace_id

    assert [*await asyncio.gather(within("a"), within("b"))] == ["a" * 32, "b" * 32]
    assert current_trace() is None


async def _seen() -> TraceContext | None:
    return current_trace()
