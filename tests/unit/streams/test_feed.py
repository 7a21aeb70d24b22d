"""One job's events in a process, and what its listeners get of them."""

import json
from typing import Any

import pytest

from clasper_worker.errors import InvalidRequestError
from clasper_worker.streams.feed import Feed
from clasper_worker.streams.ids import NOTHING, EventId, end_id, read_id
from clasper_worker.streams.results import JobOutcome


def entry(number: int, *events: dict[str, Any]) -> Any:
    return f"{number}-0".encode(), {b"e": json.dumps(events).encode()}


def chunk(text: str, step: int = 1) -> dict[str, Any]:
    return {"type": "chunk", "data": text, "step": step}


START = {"type": "start", "job_id": "j", "turn_id": "t", "streamed": True}
STEP = {"type": "step", "step": 1}


def a_feed(*entries: Any, **options: Any) -> Feed:
    feed = Feed("j", "t", **options)
    feed.absorb(entries)
    return feed


def told(feed: Feed, cursor: EventId = NOTHING, **options: Any) -> list[str]:
    found = feed.after(cursor, **options)
    assert found is not None
    return [event.data["type"] for event in found]


def test_entries_that_come_again_are_left_out() -> None:
    feed = a_feed(entry(1, START), entry(2, chunk("a")))
    feed.absorb([entry(1, START), entry(2, chunk("a")), entry(3, chunk("b"))])
    assert told(feed) == ["start", "chunk", "chunk"]


def test_a_listener_goes_on_after_any_event_of_an_entry() -> None:
    feed = a_feed(entry(1, START, STEP, chunk("a")), entry(2, chunk("b")))
    assert told(feed, EventId(1, 0, 0)) == ["step", "chunk", "chunk"]
    assert told(feed, EventId(1, 0, 2)) == ["chunk"]


def test_the_last_event_has_the_fields_of_the_result() -> None:
    feed = a_feed(entry(1, START, STEP, chunk("Hello")))
    feed.finish(JobOutcome("SUCCESS", result={"response": "Hello", "tool_calls": 0}))
    (done,) = feed.after(EventId(1, 0, 2)) or ()
    assert done.data == {"type": "done", "response": "Hello", "tool_calls": 0}
    assert (str(done.id), told(feed, done.id)) == ("end-1.2", [])


@pytest.mark.parametrize(
    "events",
    [
        [STEP, chunk("Hell")],  # the end is lost
        [STEP, chunk("I look"), {"type": "step", "step": 2}],  # all of the last step is
        [STEP],  # all text is
    ],
)
def test_text_that_is_not_the_response_is_said_anew_before_the_end(events: Any) -> None:
    feed = a_feed(entry(1, START, *events))
    feed.finish(JobOutcome("SUCCESS", result={"response": "Hello"}))
    retry, anew, done = (feed.after(NOTHING) or ())[-3:]
    step = 2 if len(events) == 3 else 1
    assert retry.data == {"type": "retry", "step": step}
    assert anew.data == chunk("Hello", step)
    assert done.data["type"] == "done"


def test_who_had_the_beginning_of_such_an_end_elsewhere_gets_the_rest_of_it() -> None:
    feed = a_feed(entry(1, START, STEP, chunk("Hello")))
    feed.finish(JobOutcome("SUCCESS", result={"response": "Hello"}))
    assert told(feed, end_id(1, 0)) == ["chunk", "done"]
    assert told(feed, end_id(1, 1)) == ["done"]


def test_a_turn_that_is_not_streamed_ends_without_text() -> None:
    feed = a_feed(entry(1, {**START, "streamed": False}, STEP))
    feed.finish(JobOutcome("SUCCESS", result={"response": "Hello"}))
    assert told(feed) == ["start", "step", "done"]


def test_a_failure_is_the_last_event() -> None:
    feed = a_feed(entry(1, START, STEP, chunk("Hel")))
    feed.finish(JobOutcome("REVOKED", error={"error": "E", "code": "cancelled", "details": {}}))
    *_, last = feed.after(NOTHING) or ()
    assert last.data == {"type": "error", "error": "E", "code": "cancelled", "details": {},
                         "job_id": "j", "turn_id": "t"}  # fmt: skip


def test_what_is_not_kept_any_more_is_read_from_redis_by_who_is_that_far_behind() -> None:
    entries = [entry(number, chunk("x" * 100)) for number in range(1, 50)]
    feed = a_feed(*entries, kept_bytes=1000)
    assert feed.after(NOTHING) is None
    kept = feed.after(feed.gone)
    assert kept is not None
    assert 1 <= len(kept) < 10


def test_that_a_job_waits_is_said_once_and_before_all_else() -> None:
    feed = a_feed()
    feed.queue("session", 2)
    feed.absorb([entry(1, START)])
    feed.queue("session", 1)
    assert told(feed) == ["queued", "start"]
    assert told(feed, read_id("0-0.1")) == ["start"]


def test_an_event_is_three_lines_with_its_id_first() -> None:
    (event,) = a_feed(entry(5, chunk("é\n"))).after(NOTHING) or ()
    assert event.sse.decode() == (
        'id: 5-0.0\r\nevent: chunk\r\ndata: {"type": "chunk", "data": "é\\n", "step": 1}\r\n\r\n'
    )


@pytest.mark.parametrize("mark", ["\x85", "\u2028", "\u2029", "\r", "\x1c"])
def test_no_character_of_the_text_breaks_an_events_line(mark: str) -> None:
    (event,) = a_feed(entry(5, chunk(f"a{mark}b"))).after(NOTHING) or ()
    *_, data, end = event.sse.decode().splitlines()
    assert (json.loads(data.removeprefix("data: "))["data"], end) == (f"a{mark}b", "")


@pytest.mark.parametrize("text", ["1-2.3", "end-4.2", "0-0.1"])
def test_an_id_is_read_as_it_was_written(text: str) -> None:
    assert str(read_id(text)) == text


@pytest.mark.parametrize(
    "text",
    ["1", "1-2", "a-1.0", "1-2.3 ", "-1-2.3", "9" * 5000, "\u0661-2.3", "end-1.3", f"{2**63}-1.0"],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="Last-Event-ID"):
        read_id(text)
