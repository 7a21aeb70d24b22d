import json
from typing import Any

import pytest

from clasper_worker.devkit.offline_model.protocol import parse_request, read_object
from clasper_worker.errors import InvalidRequestError

USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "f"}}
CALLS = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}


@pytest.mark.parametrize(
    ("data", "param", "code"),
    [
        ({}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_value"),
        ({"messages": [USER], "n": 2}, "n", "invalid_value"),
        ({"messages": [USER], "model": ""}, "model", "invalid_value"),
        (
            {"messages": [USER], "tools": [{"type": "function"}]},
            "tools[0].function",
            "missing_required_parameter",
        ),
        ({"messages": [USER], "tools": [TOOL, TOOL]}, "tools", "invalid_value"),
        ({"messages": [USER], "tool_choice": "required"}, "tool_choice", "invalid_value"),
        (
            {"messages": [USER], "tools": [TOOL], "tool_choice": "sometimes"},
            "tool_choice.type",
            "invalid_value",
        ),
        (
            {
                "messages": [USER],
                "tools": [TOOL],
                "tool_choice": {"type": "function", "function": {"name": "g"}},
            },
            "tool_choice.function.name",
            "invalid_value",
        ),
        (
            {"messages": [USER], "response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "missing_required_parameter",
        ),
        ({"messages": [USER, CALLS]}, "messages", "invalid_value"),
        ({"messages": [USER, CALLS, USER]}, "messages", "invalid_value"),
        (
            {"messages": [USER, {"role": "tool", "tool_call_id": "c1", "content": "x"}]},
            "messages[1].tool_call_id",
            "invalid_value",
        ),
        (
            {"messages": [USER, CALLS, {"role": "tool", "tool_call_id": "c2", "content": "x"}]},
            "messages[2].tool_call_id",
            "invalid_value",
        ),
    ],
)
def test_what_the_api_would_refuse_is_refused_and_the_field_named(
    data: Any, param: str, code: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_request(data)
    assert caught.value.details == {"param": param, "code": code}
    assert param.partition("[")[0] in str(caught.value)


def test_an_error_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_request({"messages": [{"role": "secret-token", "content": "secret-token"}]})
    assert "secret-token" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 200_000])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        read_object(body)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Hi", "Hi"),
        (None, ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        (
            [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "x"}}],
            "see\n[image_url]",
        ),
    ],
)
def test_content_is_read_as_text_or_parts(content: Any, text: str) -> None:
    request = parse_request({"messages": [{"role": "user", "content": content}]})
    assert request.messages[0].text == text


def test_tool_results_in_any_order_answer_the_calls_before_them() -> None:
    calls = [
        {"id": f"c{i}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        for i in range(2)
    ]
    results = [{"role": "tool", "tool_call_id": f"c{i}", "content": "x"} for i in (1, 0)]
    messages = [USER, {"role": "assistant", "tool_calls": calls}, *results, USER]
    assert len(parse_request({"messages": messages}).messages) == 5


def test_unknown_fields_are_ignored() -> None:
    data = {"messages": [{**USER, "name": "Ada"}], "temperature": 0.2, "seed": 7, "store": True}
    assert parse_request(json.loads(json.dumps(data))).usable_functions == ()
