"""The adapter to OpenAI's API, against the real client over a scripted HTTP transport."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from clasper_worker import errors
from clasper_worker.llm.catalogue import ModelRef
from clasper_worker.llm.messages import ChatMessage, TokenUsage, ToolCall, ToolSpec
from clasper_worker.llm.openai_compatible import (
    OpenAICompatibleModel,
    parse_completion,
    translate_error,
)

REF = ModelRef("openai", "gpt-4o-mini")
HELLO = [ChatMessage("user", "Hello")]
TOOL = ToolSpec("f", "does f", {"type": "object", "properties": {}})
COMPLETION = {
    "id": "c1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}
    ],
    "usage": {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 3},
    },
}
Handler = Callable[[httpx2.Request], httpx2.Response]


def model_answering(handler: Handler, *, retries: int = 0, **options: Any) -> OpenAICompatibleModel:
    client = AsyncOpenAI(
        api_key="sk-SECRET",
        base_url="http://model.test/v1",
        max_retries=0,
        http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(handler)),
    )
    return OpenAICompatibleModel(client, REF, retries=retries, **options)


async def test_a_reply_is_read_with_its_usage_and_the_model_that_gave_it() -> None:
    reply = await model_answering(lambda _: httpx2.Response(200, json=COMPLETION)).complete(HELLO)
    assert (reply.text, reply.model) == ("Hi", "gpt-4o-mini-2024-07-18")
    assert reply.usage == TokenUsage(7, 2, 3)


async def test_the_request_is_the_apis() -> None:
    seen: list[dict[str, Any]] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(
            {
                "path": request.url.path,
                "auth": request.headers["authorization"],
                **json.loads(request.content),
            }
        )
        return httpx2.Response(200, json=COMPLETION)

    conversation = [
        ChatMessage("system", "S"),
        ChatMessage("user", "U"),
        ChatMessage("assistant", None, (ToolCall("c1", "f", "{}"),)),
        ChatMessage("tool", "R", tool_call_id="c1"),
    ]
    model = model_answering(handler, max_output_tokens=9)
    await model.complete(conversation, [TOOL], tool_choice="none")
    assert seen == [
        {
            "path": "/v1/chat/completions",
            "auth": "Bearer sk-SECRET",
            "model": "gpt-4o-mini",
            "max_tokens": 9,
            "messages": [
                {"role": "system", "content": "S"},
                {"role": "user", "content": "U"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "f", "arguments": "{}"},
                        }
                    ],
                },
                {"role": "tool", "content": "R", "tool_call_id": "c1"},
            ],
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "f",
                        "description": "does f",
                        "parameters": {"type": "object", "properties": {}},
                    },
                }
            ],
            "tool_choice": "none",
        }
    ]


def test_tool_calls_are_read_and_arguments_given_as_an_object_become_json() -> None:
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
            {"id": "2", "type": "function", "function": {"name": "g", "arguments": {"b": 2}}},
        ],
    }
    reply = parse_completion({"choices": [{"message": message}]}, REF)
    assert reply.tool_calls == (ToolCall("1", "f", '{"a": 1}'), ToolCall("2", "g", '{"b": 2}'))
    assert (reply.text, reply.model) == ("", "gpt-4o-mini")


@pytest.mark.parametrize(
    "answer",
    [{}, [], None, "text", {"choices": []}, {"choices": [{"message": None}]},
     {"choices": [{"message": {"content": 5}}]}, {"choices": [{"message": {"tool_calls": [{}]}}]}],
)  # fmt: skip
def test_an_answer_of_another_form_is_a_protocol_error(answer: object) -> None:
    with pytest.raises(errors.ModelProtocolError):
        parse_completion(answer, REF)


@pytest.mark.parametrize("body", [b"<html>", b""])
async def test_a_body_that_is_not_json_is_a_protocol_error(body: bytes) -> None:
    model = model_answering(lambda _: httpx2.Response(200, content=body))
    with pytest.raises(errors.ModelProtocolError):
        await model.complete(HELLO)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "context_length_exceeded", errors.ModelRejectedError),
        (401, "invalid_api_key", errors.ModelAuthError),
        (403, None, errors.ModelAuthError),
        (404, "model_not_found", errors.ModelRejectedError),
        (408, None, errors.ModelUnavailableError),
        (409, None, errors.ModelUnavailableError),
        (422, None, errors.ModelRejectedError),
        (429, "rate_limit_exceeded", errors.ModelUnavailableError),
        (429, "insufficient_quota", errors.ModelRejectedError),
        (500, None, errors.ModelUnavailableError),
        (503, None, errors.ModelUnavailableError),
    ],
)
async def test_each_status_has_its_error_without_the_providers_text(
    status: int, code: str | None, expected: type[errors.ModelError]
) -> None:
    body = {"error": {"message": "you sent SECRET", "type": "t", "code": code}}
    model = model_answering(lambda _: httpx2.Response(status, json=body))
    with pytest.raises(errors.ModelError) as caught:
        await model.complete(HELLO)
    assert type(caught.value) is expected
    assert "SECRET" not in f"{caught.value!r} {caught.value.details}"
    assert caught.value.details["status"] == status


async def test_a_lost_connection_and_a_timeout_are_unavailability() -> None:
    for raised in (httpx2.ConnectError("x"), httpx2.ReadTimeout("x")):

        def handler(_: httpx2.Request, raised: Exception = raised) -> httpx2.Response:
            raise raised

        with pytest.raises(errors.ModelUnavailableError):
            await model_answering(handler).complete(HELLO)


async def test_a_rate_limit_is_waited_out_as_its_retry_after_says() -> None:
    answers = [httpx2.Response(429, headers={"retry-after-ms": "1"}, json={}),
               httpx2.Response(200, json=COMPLETION)]  # fmt: skip
    reply = await model_answering(lambda _: answers.pop(0), retries=1).complete(HELLO)
    assert (reply.text, answers) == ("Hi", [])


def _all_subclasses(cls: type) -> set[type]:
    return {cls}.union(*(_all_subclasses(sub) for sub in cls.__subclasses__()))


def test_no_error_of_the_client_is_left_untranslated() -> None:
    request = httpx2.Request("POST", "http://model.test")
    for cls in _all_subclasses(openai.APIStatusError):
        response = httpx2.Response(418, request=request)
        exc = cls.__new__(cls)
        openai.APIStatusError.__init__(exc, "m", response=response, body=None)
        assert isinstance(translate_error(exc, "m"), errors.ModelError)
    for exc in (
        openai.APITimeoutError(request),
        openai.APIConnectionError(request=request),
        openai.APIResponseValidationError(httpx2.Response(200, request=request), None),
        openai.OpenAIError("x"),
    ):
        assert isinstance(translate_error(exc, "m"), errors.ModelError)


def test_token_counts_that_do_not_add_up_are_clamped() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": -3,
             "prompt_tokens_details": {"cached_tokens": 900}}  # fmt: skip
    reply = parse_completion({"choices": [{"message": {"content": "x"}}], "usage": usage}, REF)
    assert reply.usage == TokenUsage(10, 0, 10)


def test_half_a_surrogate_pair_in_a_reply_does_not_get_through() -> None:
    reply = parse_completion({"choices": [{"message": {"content": "a\ud800b"}}]}, REF)
    assert reply.text == "a?b"


async def test_a_refused_connection_is_not_called_a_timeout() -> None:
    for raised in (httpx2.ConnectTimeout("refused"), httpx2.ConnectError("refused")):

        def handler(_: httpx2.Request, raised: Exception = raised) -> httpx2.Response:
            raise raised

        with pytest.raises(errors.ModelUnavailableError, match="OPENAI_BASE_URL"):
            await model_answering(handler).complete(HELLO)
