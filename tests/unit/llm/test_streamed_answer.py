"""A streamed answer makes the completion that it would have been, however its bytes are cut."""

import contextlib
import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clasper_worker.llm.completion import read_completion
from clasper_worker.llm.messages import (
    CallBegun,
    ModelEvent,
    ModelReply,
    ReasoningPart,
    TextPart,
    TokenUsage,
    ToolCall,
)
from clasper_worker.llm.providers.catalogue import ModelRef
from clasper_worker.llm.response_body import MAX_ANSWER_BYTES, BrokenAnswerError, EmbeddedError
from clasper_worker.llm.streamed_answer import CutAnswerError, StreamedAnswer
from tests.examples import examples
from tests.growth import is_linear
from tests.unit.llm.model_server import COUNTED, DONE, STOP, USAGE, delta, event

REF = ModelRef("openai", "m-1")


def read(*parts: bytes, is_stream: bool = True) -> tuple[ModelReply, list[ModelEvent]]:
    heard: list[ModelEvent] = []
    answer = StreamedAnswer(heard.append, is_stream=is_stream)
    for part in parts:
        answer.feed(part)
    return read_completion(answer.end(), REF), heard


def text_in(heard: Sequence[ModelEvent]) -> str:
    return "".join(part.text for part in heard if isinstance(part, TextPart))


def call(**fields: Any) -> bytes:
    """A piece of a tool call; ``name`` and ``arguments`` stand in its function."""
    function = {name: fields.pop(name) for name in ("name", "arguments") if name in fields}
    return delta({"tool_calls": [{**fields, "function": function}]})


def calls_in(*parts: bytes) -> list[tuple[str, str]]:
    reply, _ = read(*parts, delta({}, "tool_calls"), DONE)
    return [(made.name, made.arguments) for made in reply.tool_calls]


USUAL = b"".join(
    [
        b": keep-alive\r\n\r\n",
        delta({"role": "assistant", "content": ""}),
        delta("Héll", usage=None),
        delta("o 😀"),
        b"event: message\nid: 7\nretry: 10\n" + delta("\n\nworld"),
        delta({"reasoning_content": "So."}),
        delta({}, "stop"),
        COUNTED,
        DONE,
    ]
)


def test_the_usual_stream_makes_the_usual_reply() -> None:
    reply, heard = read(USUAL)
    assert reply.text == text_in(heard) == "Héllo 😀\n\nworld"
    assert (reply.usage, reply.finish_reason, reply.model) == (TokenUsage(7, 2, 0), "stop", "m-1")
    assert [part for part in heard if not isinstance(part, TextPart)] == [ReasoningPart("So.")]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@settings(max_examples=examples(60), deadline=None)
@given(places=st.lists(st.integers(0, len(USUAL) + 40), max_size=8))
def test_however_its_bytes_are_cut_it_is_the_same(end: bytes, places: list[int]) -> None:
    body = USUAL.replace(b"\r\n", b"\n").replace(b"\n", end)
    ends = [0, *sorted(min(place, len(body)) for place in places), len(body)]
    whole, heard = read(USUAL)
    reply, again = read(*(body[a:b] for a, b in itertools.pairwise(ends)))
    assert reply == whole
    assert text_in(again) == text_in(heard)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_byte_by_byte_it_is_the_same(end: bytes) -> None:
    body = USUAL.replace(b"\r\n", b"\n").replace(b"\n", end)
    assert read(*(body[n : n + 1] for n in range(len(body))))[0] == read(USUAL)[0]


def test_what_comes_at_once_is_one_event() -> None:
    _, heard = read(delta("a") + delta("b") + delta("c") + STOP + DONE)
    assert heard == [TextPart("abc")]


@pytest.mark.parametrize(
    ("parts", "usage"),
    [
        ([STOP, COUNTED], TokenUsage(7, 2)),
        ([delta("", usage={"prompt_tokens": 7, "completion_tokens": 1}), STOP, COUNTED],
         TokenUsage(7, 2)),
        ([delta({}, "stop", usage=USAGE)], TokenUsage(7, 2)),
        ([event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]})],
         TokenUsage(7, 2)),
        ([delta({}, "stop", x_groq={"usage": USAGE})], TokenUsage(7, 2)),
        ([delta("", usage={"prompt_tokens": 7, "completion_tokens": 0}),
          delta({}, "stop", usage={"prompt_tokens": 0, "completion_tokens": 2})], TokenUsage(7, 2)),
        ([STOP], TokenUsage(is_complete=False)),
        ([delta({}, "stop", usage=None)], TokenUsage(is_complete=False)),
    ],
)  # fmt: skip
def test_usage_is_read_wherever_it_comes(parts: list[bytes], usage: TokenUsage) -> None:
    assert read(delta("Hi"), *parts, DONE)[0].usage == usage


@pytest.mark.parametrize(
    ("parts", "made"),
    [
        # As the API has it: two calls in turn, by their indices.
        ([call(index=0, id="a", name="f", arguments=""), call(index=0, arguments='{"x"'),
          call(index=1, id="b", name="g", arguments=""), call(index=0, arguments=": 1}"),
          call(index=1, arguments="{}")], [("f", '{"x": 1}'), ("g", "{}")]),
        # Whole, in one event or in several.
        ([call(index=0, id="a", name="f", arguments='{"x": 1}'),
          call(index=1, id="b", name="f", arguments='{"x": 2}')],
         [("f", '{"x": 1}'), ("f", '{"x": 2}')]),
        ([delta({"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}},
                                {"id": "b", "function": {"name": "g", "arguments": "{}"}}]})],
         [("f", "{}"), ("g", "{}")]),
        # All with the same index.
        ([call(index=0, id="a", name="f", arguments="{}"),
          call(index=0, id="b", name="f", arguments='{"x": 2}')], [("f", "{}"), ("f", '{"x": 2}')]),
        ([call(index=0, name="f", arguments="{}"), call(index=0, name="f", arguments='{"x": 2}')],
         [("f", "{}"), ("f", '{"x": 2}')]),
        # Without index, or ids, or both.
        ([call(id="a", name="f", arguments='{"x"'), call(id="a", arguments=": 1}"),
          call(id="b", name="f", arguments="{}")], [("f", '{"x": 1}'), ("f", "{}")]),
        ([call(name="f", arguments='{"x"'), call(arguments=": 1}"), call(name="g", arguments="{}")],
         [("f", '{"x": 1}'), ("g", "{}")]),
        ([call(name="f", arguments={"x": 1}), call(name="f", arguments={"x": 2})],
         [("f", '{"x": 1}'), ("f", '{"x": 2}')]),
        # The name, or another id, in each piece.
        ([call(index=0, id="a", name="f", arguments='{"x"'),
          call(index=0, id="a", name="f", arguments=": 1}")], [("f", '{"x": 1}')]),
        ([call(index=0, name="f", arguments='{"x"'), call(index=0, name="f", arguments=": 1}")],
         [("f", '{"x": 1}')]),
        ([call(index=0, id="a", name="f", arguments='{"x"'),
          call(index=0, id="b", name=None, arguments=": 1}")], [("f", '{"x": 1}')]),
        ([call(index=0, id="a", name="list_"), call(index=0, name="tasks", arguments="{}")],
         [("list_tasks", "{}")]),
        # Out of order; without the level in between; in the API's older form.
        ([call(index=1, id="b", name="g", arguments="{}"),
          call(index=0, id="a", name="f", arguments="{}")], [("f", "{}"), ("g", "{}")]),
        ([delta({"tool_calls": [{"index": 0, "name": "f", "arguments": "{}"}]})], [("f", "{}")]),
        ([delta({"tool_calls": {"index": 0, "function": {"name": "f"}}})], [("f", "{}")]),
        ([delta({"function_call": {"name": "f", "arguments": ""}}),
          delta({"function_call": {"arguments": "{}"}})], [("f", "{}")]),
    ],
)  # fmt: skip
def test_tool_calls_are_put_together_as_servers_send_them(
    parts: list[bytes], made: list[tuple[str, str]]
) -> None:
    assert calls_in(*parts) == made


def test_a_whole_message_of_the_older_form_calls_its_function() -> None:
    message = {"role": "assistant", "content": None, "function_call": {"name": "f"}}
    reply = read_completion({"choices": [{"message": message}]}, REF)
    assert reply.tool_calls == (ToolCall("", "f", "{}"),)
    assert reply.extra is None


def test_a_call_is_told_once_after_the_text_before_it() -> None:
    first = delta({"content": "Let me look."})
    _, heard = read(
        first + call(index=0, name="f", arguments="{") + call(index=0, arguments="}"), STOP, DONE
    )
    assert heard == [TextPart("Let me look."), CallBegun(0, "f")]


def test_fields_that_mean_nothing_to_us_are_whole_again() -> None:
    signed = {"extra_content": {"google": {"thought_signature": "xyz"}}}
    details = [{"type": "reasoning.text", "text": "So", "index": 0, "format": "v1"}]
    more = [{"type": "reasoning.text", "text": ".", "index": 0, "format": "v1", "signature": "s"}]
    other = [{"type": "reasoning.encrypted", "data": "e", "index": 1}]
    reply, heard = read(
        delta({"reasoning_content": "So", "reasoning_details": details}),
        delta({"reasoning_content": ".", "reasoning_details": more}),
        delta({"reasoning_details": other}),
        delta({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f"}, **signed}]}),
        delta({}, "tool_calls"),
        DONE,
    )
    assert reply.extra == {
        "reasoning_content": "So.",
        "reasoning_details": [
            {"type": "reasoning.text", "text": "So.", "index": 0, "format": "v1", "signature": "s"},
            *other,
        ],
    }
    assert reply.tool_calls[0].extra == signed
    assert reply.text == text_in(heard) == ""


def test_content_in_parts_keeps_thoughts_out_of_the_text() -> None:
    thoughts = {"type": "thinking", "thinking": [{"type": "text", "text": "So."}]}
    reply, heard = read(
        delta([thoughts]), delta([thoughts]), delta([{"type": "text", "text": "H"}]), delta("i"),
        call(index=0, name="f"), STOP, DONE,
    )  # fmt: skip
    assert reply.text == text_in(heard) == "Hi"
    said = [{"type": "text", "text": "So.So."}]
    assert reply.extra == {
        "content": [{"type": "thinking", "thinking": said}, {"type": "text", "text": "Hi"}]
    }


def test_a_refusal_is_what_the_model_says() -> None:
    reply, _ = read(delta({"refusal": "I ca"}), delta({"refusal": "nnot."}), STOP, DONE)
    assert reply.text == "I cannot."


def test_other_choices_are_left_alone() -> None:
    other = {"index": 1, "delta": {"content": "other"}, "finish_reason": "stop"}
    both = {"choices": [other, {"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]}
    reply, heard = read(event({"choices": [other]}), event(both), STOP, DONE)
    assert reply.text == text_in(heard) == "Hi"


HALVES = (b"d83d", b"de00")


def test_halves_of_a_surrogate_pair_meet_again() -> None:
    halves = [event(rb'{"choices":[{"delta":{"content":"\u%s"}}]}' % half) for half in HALVES]
    reply, _ = read(*halves, STOP, DONE)
    assert reply.text == "😀"


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"choices":\ndata: [{"delta": {"content": "Hi"}}]}\n\n',
        b'data:{"choices": [{"delta": {"content": "Hi"}}]}\n',
        b'\xef\xbb\xbfdata: {"choices": [{"delta": {"content": "Hi"}}]}\n\n',
        b'data:\n\ndata: {"choices": [{"delta": {"content": "Hi"}}]}\n\n',
        b'event: ping\ndata: {"type": "ping"}\n\n' + delta("Hi"),
        b"data: null\n\n" + delta("Hi") + event({"choices": [], "prompt_filter_results": []}),
        event({"choices": [{"delta": None, "message": {"content": "Hi"}}]}),
        delta("Hi") + event({"choices": [{"delta": None, "message": {"content": "Hi"}}]}),
        delta("Hi", ""),
    ],
)
def test_events_are_read_in_any_form_that_servers_give_them(body: bytes) -> None:
    reply, heard = read(body, STOP, DONE)
    assert reply.text == text_in(heard) == "Hi"


WHOLE = {"model": "m-1", "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_server_that_answers_whole_is_understood(is_stream: bool, size: int) -> None:
    body = b" \n" + json.dumps(WHOLE).encode()
    parts = [body[n : n + size] for n in range(0, len(body), size)]
    reply, heard = read(*parts, is_stream=is_stream)
    assert reply.text == text_in(heard) == "Hi"


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"", b"null", b"data", b"[]"])
def test_what_is_neither_a_stream_nor_an_answer_says_so(body: bytes) -> None:
    with pytest.raises(BrokenAnswerError):
        read(body, is_stream=False)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b": waiting\n\n"],
        [delta("Hi")],
        [delta("Hi"), b'data: {"choices": [{"del'],
        [delta("Hi"), b"data: [DO"],
        [delta("Hi"), COUNTED],
        [call(index=0, name="f", arguments='{"x"'), DONE],
    ],
)
def test_a_stream_that_ends_before_its_reply_is_whole_is_cut(parts: list[bytes]) -> None:
    with pytest.raises(CutAnswerError):
        read(*parts)


@pytest.mark.parametrize(
    "parts",
    [
        [DONE],
        [b"data: [DONE]"],
        [STOP],
        [STOP[:-2]],
        [STOP, b'data: {"choices": [], "usa'],
        [call(index=0, name="f", arguments="{}"), DONE],
    ],
)
def test_a_reply_is_whole_with_its_reason_or_the_end_of_its_stream(parts: list[bytes]) -> None:
    assert read(delta("Hi"), *parts)[0].text == "Hi"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (event({"error": {"code": 503, "message": "x"}}), 503),
        (event({"error": "rate_limit"}), 429),
        (event([{"error": {"code": 503}}]), 503),
        (event({"error": {"type": "overloaded_error"}}, b"\n"), 503),
        (b'event: error\ndata: {"type": "overloaded_error"}\n\n', 503),
        (b"event: error\ndata: the server is overloaded\n\n", 503),
        (b'{"error": {"code": 500}}\n', 500),
        (event({"object": "error", "message": "x", "code": 400}), 400),
        (event({"detail": "unavailable"}), 503),
        (event({"choices": [{"index": 0, "delta": {}, "error": {"code": 502}}]}), 502),
        (delta({"content": ""}, "error"), 502),
    ],
)
@pytest.mark.parametrize("before", [b"", delta("half")])
def test_an_error_in_the_stream_is_the_status_that_it_stands_for(
    before: bytes, body: bytes, status: int
) -> None:
    with pytest.raises(EmbeddedError) as caught:
        read(before + body)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "part",
    [
        b"data: nonsense\n\n",
        b"data: {}x\n\n",
        b"data: \xff\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        event({"choices": 5}),
        event({"choices": [5]}),
        delta({"content": 5}),
        delta({"tool_calls": [5]}),
        delta({"tool_calls": [{"index": 0, "id": [1], "function": {"name": "f"}}]}),
        DONE,
    ],
)
def test_events_that_are_none_are_a_broken_answer(part: bytes) -> None:
    with pytest.raises(BrokenAnswerError):
        read(part)


@pytest.mark.parametrize(
    "part",
    [
        b"data: " + b"x" * 40_000,  # a line that never ends
        event(b"x", b"\n") * 40_000,  # an event that never ends
        delta("x" * 40_000),
        call(index=0, arguments="x" * 40_000),
        delta({"reasoning": "x" * 40_000}),
        delta({"other": ["x" * 40_000]}),
        b": comment\n\n" * 4_000,
    ],
)
def test_what_never_ends_is_given_up(part: bytes) -> None:
    answer = StreamedAnswer(lambda _: None)

    def feed_for_long() -> None:
        for _ in range(20 * MAX_ANSWER_BYTES // len(part)):
            answer.feed(part)

    with pytest.raises(BrokenAnswerError):
        feed_for_long()


@pytest.mark.parametrize(
    "part",
    [
        delta("x"), delta({"reasoning": "x"}), delta([{"type": "text", "text": "x"}]), b"data: x\n",
        call(index=0, name="f", arguments="{}"), call(index=0, arguments="x"), b"x",
        call(index=0, id="a", name="fg"), call(name="f"), b": x\n\n", b"\r", COUNTED,
        delta({"reasoning_details": [{"type": "reasoning.text", "text": "x", "index": 0}]}),
    ],
)  # fmt: skip
def test_the_time_grows_as_the_stream_does(part: bytes) -> None:
    def run(text: str) -> None:
        answer = StreamedAnswer(lambda _: None)
        for _ in text:
            answer.feed(part)
        with contextlib.suppress(BrokenAnswerError, CutAnswerError):
            answer.end()

    assert is_linear(run, lambda times: "." * times, 2048)
