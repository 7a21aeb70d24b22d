"""Requests in the words that a model knows, found out from what its provider refuses."""

from collections.abc import Callable
from typing import Any

import pytest

from clasper_worker import errors
from clasper_worker.llm.messages import CallOptions, ChatMessage, ToolCall, ToolSpec
from tests.unit.llm.model_server import Body, Played, model_of, refuses, says

HELLO = [ChatMessage("system", "Be kind."), ChatMessage("user", "Hello")]
TOOL = ToolSpec("f", "does f", {"type": "object", "properties": {}})
SIGNED = ToolCall("1", "f", "{}", {"extra_content": {"google": {"thought_signature": "xyz"}}})
CALLED = [
    *HELLO,
    ChatMessage("assistant", None, (SIGNED,), extra={"reasoning_content": "So."}),
    ChatMessage("tool", "R", tool_call_id="1"),
]


def unless(is_bad: Callable[[Body], bool], refusal: Played) -> Callable[[Body], Played]:
    return lambda body: refusal if is_bad(body) else says("Hi")


def roles(body: Body) -> list[str]:
    return [message["role"] for message in body["messages"]]


def unsupported(name: str, instead: str = "") -> Played:
    text = f"Unsupported parameter: '{name}' is not supported with this model.{instead}"
    return refuses(
        400, text, type="invalid_request_error", param=name, code="unsupported_parameter"
    )


REFUSALS: dict[str, tuple[Callable[[Body], bool], Played, Callable[[Body], bool]]] = {
    "max_tokens, by OpenAI": (
        lambda body: "max_tokens" in body,
        unsupported("max_tokens", " Use 'max_completion_tokens' instead."),
        lambda body: body["max_completion_tokens"] == 9,
    ),
    "max_tokens, by its value": (
        lambda body: "max_tokens" in body or "max_completion_tokens" in body,
        refuses(400, "max_tokens is too large: 9. This model supports at most 4."),
        lambda body: "max_completion_tokens" not in body,
    ),
    "both names of the cap": (
        lambda body: "max_tokens" in body or "max_completion_tokens" in body,
        Played(422, {"detail": [
            {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not"
             " permitted"} for name in ("max_tokens", "max_completion_tokens")]}),
        lambda body: "model" in body,
    ),
    "tool_choice, by OpenRouter": (
        lambda body: "tool_choice" in body,
        refuses(404, "No endpoints found that support the provided 'tool_choice' value.", code=404),
        lambda body: "tools" in body,
    ),
    "tool_choice, unrecognized": (
        lambda body: "tool_choice" in body,
        refuses(400, "Unrecognized request argument supplied: tool_choice"),
        lambda body: "tools" in body,
    ),
    "tool_choice, by Google": (
        lambda body: "tool_choice" in body,
        Played(400, [{"error": {"code": 400, "message": "Invalid JSON payload received. Unknown"
                                ' name "tool_choice": Cannot find field.'}}]),
        lambda body: "tools" in body,
    ),
    "the role system": (
        lambda body: "system" in roles(body),
        refuses(400, "Unsupported value: 'messages[0].role' does not support 'system' with this"
                " model.", param="messages[0].role", code="unsupported_value"),
        lambda body: roles(body)[0] == "developer",
    ),
    "the roles system and developer": (
        lambda body: {"system", "developer"} & set(roles(body)) != set(),
        refuses(400, "System role not supported; developer instruction is not enabled"),
        lambda body: roles(body)[0] == "user",
    ),
    "fields of its own messages": (
        lambda body: "reasoning_content" in str(body),
        refuses(400, "'messages.2' : property 'reasoning_content' is unsupported"),
        lambda body: body["messages"][2]["tool_calls"][0]["function"]["name"] == "f",
    ),
    "null as a content": (
        lambda body: any(message["content"] is None for message in body["messages"]),
        refuses(400, "Invalid value for 'content': expected a string, got null.",
                param="messages.[2].content"),
        lambda body: body["messages"][2]["content"] == "",
    ),
    "inside HTTP 200": (
        lambda body: "max_tokens" in body,
        Played(200, {"error": {"code": 400, "message": "Unknown parameter: max_tokens"}}),
        lambda body: "max_completion_tokens" in body,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
async def test_what_a_model_refuses_is_put_otherwise_once_and_remembered(case: Any) -> None:
    is_bad, refusal, is_good = case
    async with model_of(unless(is_bad, refusal), max_output_tokens=9) as (model, server):
        for _ in range(2):
            reply = await model.complete(CALLED, [TOOL], tool_choice="none")
            assert reply.text == "Hi"
    *refused, again, after = server.asked
    assert 1 <= len(refused) <= 2
    assert again == after
    assert is_good(after)


async def test_what_does_not_help_is_not_remembered_and_the_error_names_the_parameter() -> None:
    async with model_of(unsupported("max_tokens"), max_output_tokens=9) as (model, server):
        for _ in range(2):
            with pytest.raises(errors.ModelRejectedError, match="max_tokens") as caught:
                await model.complete(HELLO)
    assert caught.value.details["parameter"] == "max_tokens"
    half = len(server.asked) // 2
    assert half <= 3
    assert server.asked[:half] == server.asked[half:]


async def test_tools_are_never_left_out_silently() -> None:
    refusal = unsupported("tools")
    async with model_of(refusal) as (model, server):
        with pytest.raises(errors.ModelRejectedError, match="tools"):
            await model.complete(HELLO, [TOOL])
    assert len(server.asked) == 1


async def test_a_refusal_for_another_reason_is_not_asked_about_again() -> None:
    async with model_of(refuses(400, "Your prompt was flagged."), max_output_tokens=9) as (
        model,
        server,
    ):
        with pytest.raises(errors.ModelRejectedError):
            await model.complete(HELLO)
    assert len(server.asked) == 1


async def test_what_a_message_says_beside_its_text_and_calls_goes_back_unchanged() -> None:
    message = {
        "role": "assistant",
        "content": "<think>So.</think>I look.",
        "reasoning_content": "So.",
        "reasoning_details": [{"type": "reasoning.encrypted", "data": "abc=="}],
        "refusal": None,
        "tool_calls": [
            {
                "id": "1",
                "type": "function",
                "index": 0,
                "function": {"name": "f", "arguments": "{}", "thought_signature": "s1"},
                "extra_content": {"google": {"thought_signature": "xyz"}},
            }
        ],
    }
    async with model_of(says(**message), says("Hi")) as (model, server):
        reply = await model.complete(HELLO, [TOOL])
        assert reply.text == "I look."
        said = ChatMessage("assistant", reply.text, reply.tool_calls, extra=reply.extra)
        await model.complete([*HELLO, said, ChatMessage("tool", "R", tool_call_id="1")], [TOOL])
    sent = server.asked[1]["messages"][2]
    assert sent == {name: value for name, value in message.items() if value is not None}


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}
WANTED = CallOptions(max_tokens=50, temperature=0.0, schema=SCHEMA)


async def test_a_schema_goes_to_the_provider_with_the_calls_own_options() -> None:
    async with model_of(says("{}"), max_output_tokens=9) as (model, server):
        await model.complete(HELLO, options=WANTED)
        await model.complete(HELLO)
    asked, other = server.asked
    assert asked["response_format"]["json_schema"]["schema"] == SCHEMA
    assert (asked["max_tokens"], asked["temperature"]) == (9, 0.0)  # the operator's cap is lower
    assert "response_format" not in other
    assert "temperature" not in other


@pytest.mark.parametrize(
    ("kind", "refusal"),
    [
        ("json_schema", refuses(400, "Invalid parameter: 'response_format' of type 'json_schema'"
                                " is not supported with this model.", param="response_format")),
        ("json_schema", refuses(422, "response_format.type: unknown variant `json_schema`")),
        ("json_object", refuses(400, "response_format is not supported")),
    ],
)  # fmt: skip
async def test_a_provider_that_takes_no_schema_is_asked_with_less_and_that_is_remembered(
    kind: str, refusal: Played
) -> None:
    def is_bad(body: Body) -> bool:
        form = body.get("response_format", {}).get("type")
        return form is not None and kind in {"json_object", form}

    async with model_of(unless(is_bad, refusal)) as (model, server):
        for _ in range(2):
            assert (await model.complete(HELLO, options=WANTED)).text == "Hi"
    *refused, again, after = server.asked
    assert len(refused) == (2 if kind == "json_object" else 1)
    assert again == after
    less = {"type": "json_object"} if kind == "json_schema" else None
    assert after.get("response_format") == less


async def test_a_schema_that_a_provider_does_not_take_says_nothing_of_others() -> None:
    refusal = refuses(
        400, "Invalid schema for response_format 'output': In context=(), 'x' is not permitted."
    )

    def is_bad(body: Body) -> bool:
        form = body.get("response_format", {})
        return "x" in form.get("json_schema", {}).get("schema", {})

    async with model_of(unless(is_bad, refusal)) as (model, server):
        for schema in ({"x": 1}, SCHEMA):
            await model.complete(HELLO, options=CallOptions(schema=schema))
    kinds = [body["response_format"]["type"] for body in server.asked]
    assert kinds == ["json_schema", "json_object", "json_schema"]
