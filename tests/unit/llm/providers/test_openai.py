"""The adapter to OpenAI's API, against the real client over a scripted HTTP transport."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
import stamina
from openai import AsyncOpenAI

from clasper_worker import errors
from clasper_worker.engine.circuit.policy import GatePolicy
from clasper_worker.llm.fallback import ModelChain
from clasper_worker.llm.messages import ChatMessage, TokenUsage, ToolCall, ToolSpec
from clasper_worker.llm.providers.catalogue import ModelRef
from clasper_worker.llm.providers.openai import OpenAICompatibleModel, parse_completion
from clasper_worker.llm.providers.openai_errors import translate_error
from tests.unit.engine.circuit.simulation import SharedStore, Worker
from tests.unit.engine.circuit.virtual_time import run_virtually

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
        timeout=None,  # virtual time would run to it while the client waits for a thread
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
        (400, "context_length_exceeded", errors.ContextLengthError),
        (401, "invalid_api_key", errors.ModelAuthError),
        (403, None, errors.ModelAuthError),
        (404, "model_not_found", errors.ModelNotFoundError),
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


@pytest.mark.parametrize(("retries", "asked"), [(0, 1), (2, 3)])
async def test_a_passing_failure_is_tried_again_as_often_as_is_set(
    retries: int, asked: int
) -> None:
    seen: list[int] = []

    def handler(_: httpx2.Request) -> httpx2.Response:
        seen.append(1)
        return httpx2.Response(500)

    with (
        stamina.set_testing(testing=True, attempts=asked, cap=True),
        pytest.raises(errors.ModelUnavailableError),
    ):
        await model_answering(handler, retries=retries).complete(HELLO)
    assert len(seen) == asked


@pytest.mark.parametrize(
    ("status", "headers", "code"),
    [(400, {}, None), (429, {}, "insufficient_quota"), (503, {"x-should-retry": "false"}, None)],
)
async def test_what_another_try_cannot_fix_is_not_tried_again(
    status: int, headers: dict[str, str], code: str | None
) -> None:
    seen: list[int] = []

    def handler(_: httpx2.Request) -> httpx2.Response:
        seen.append(1)
        return httpx2.Response(status, headers=headers, json={"error": {"code": code}})

    with pytest.raises(errors.ModelError):
        await model_answering(handler, retries=3).complete(HELLO)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "2500"}, 2.5),
        ({"retry-after": "30"}, 30),
        ({"x-ratelimit-reset-requests": "8s"}, 8),
        ({}, 1),
    ],
)
def test_a_rate_limit_is_waited_out_by_all_as_its_answer_says(
    headers: dict[str, str], seconds: float
) -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        answers = [httpx2.Response(429, headers=headers, json={})]
        times: list[float] = []

        def handler(_: httpx2.Request) -> httpx2.Response:
            times.append(loop.time())
            return answers.pop() if answers else httpx2.Response(200, json=COMPLETION)

        store = SharedStore()
        workers = [Worker(store), Worker(store)]
        one, other = (model_answering(handler, gate=worker.gate) for worker in workers)
        first = asyncio.create_task(one.complete(HELLO))
        shared = workers[0].gate
        while not shared.is_blocked or shared.known._unshared:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.001)
        await asyncio.gather(first, *(other.complete(HELLO) for _ in range(10)))
        for worker in workers:
            await worker.gates.close()
        return times

    limited, *later = run_virtually(main())
    assert len(later) == 11
    assert min(later) - limited >= seconds


def test_with_a_fallback_an_outage_is_not_waited_for() -> None:
    async def main() -> tuple[list[str], float, int]:
        loop = asyncio.get_running_loop()
        asked: list[int] = []

        def down(_: httpx2.Request) -> httpx2.Response:
            asked.append(1)
            return httpx2.Response(503)

        worker = Worker(SharedStore(), GatePolicy(failures=1))
        first = model_answering(down, retries=3, gate=worker.gate, has_fallback=True)
        second = model_answering(lambda _: httpx2.Response(200, json=COMPLETION))
        began = loop.time()
        replies = [(await ModelChain([first, second]).complete(HELLO)).text for _ in range(20)]
        took = loop.time() - began
        await worker.gates.close()
        return replies, took, len(asked)

    replies, took, asked = run_virtually(main())
    assert replies == ["Hi"] * 20
    assert took < 0.5
    assert asked == 1


def test_without_one_a_model_that_stays_away_is_unavailability() -> None:
    async def main() -> None:
        worker = Worker(SharedStore(), GatePolicy(failures=1, wait=20))
        model = model_answering(lambda _: httpx2.Response(503), retries=3, gate=worker.gate)
        for _ in range(2):
            with pytest.raises(errors.ModelUnavailableError):
                await model.complete(HELLO)
        await worker.gates.close()

    run_virtually(main())


def _all_subclasses(cls: type[object]) -> set[type[object]]:
    return {cls}.union(*(_all_subclasses(sub) for sub in cls.__subclasses__()))


def test_no_error_of_the_client_is_left_untranslated() -> None:
    request = httpx2.Request("POST", "http://model.test")
    for cls in _all_subclasses(openai.APIStatusError):
        response = httpx2.Response(418, request=request)
        exc = cls.__new__(cls)
        openai.APIStatusError.__init__(exc, "m", response=response, body=None)  # type: ignore[arg-type]
        assert isinstance(translate_error(exc, "m"), errors.ModelError)  # type: ignore[arg-type]
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
    assert reply.text == "a\ufffdb"


async def test_a_refused_connection_is_not_called_a_timeout() -> None:
    for raised in (httpx2.ConnectTimeout("refused"), httpx2.ConnectError("refused")):

        def handler(_: httpx2.Request, raised: Exception = raised) -> httpx2.Response:
            raise raised

        with pytest.raises(errors.ModelUnavailableError, match="OPENAI_BASE_URL"):
            await model_answering(handler).complete(HELLO)


async def test_the_lease_is_confirmed_before_each_try_and_a_lost_one_ends_the_call() -> None:
    asked: list[httpx2.Request] = []
    confirmed: list[int] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(500, json={"error": {"message": "down"}})

    async def confirm() -> None:
        confirmed.append(len(asked))
        if asked:
            raise errors.LeaseLostError("another run has taken the turn over")

    with stamina.set_testing(True, attempts=5), pytest.raises(errors.LeaseLostError):
        await model_answering(handler, retries=4).complete(HELLO, confirm=confirm)
    assert (len(asked), confirmed) == (1, [0, 1])
