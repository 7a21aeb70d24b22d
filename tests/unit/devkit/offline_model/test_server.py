import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
import pytest
from starlette.applications import Starlette

from clasper_worker.devkit.offline_model import server
from clasper_worker.devkit.offline_model.rules import LABEL
from clasper_worker.devkit.offline_model.server import OfflineModelConfig, create_app

USER = [{"role": "user", "content": "Hello, my token is zx-81"}]


@asynccontextmanager
async def http_client(app: Starlette) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://offline") as client:
        yield client


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with http_client(create_app()) as client:
        yield client


@pytest.fixture
def sdk(http: httpx2.AsyncClient) -> openai.AsyncOpenAI:
    """The real SDK, talking to the app."""
    return openai.AsyncOpenAI(
        api_key="any", base_url="http://offline/v1", http_client=http, max_retries=0
    )


async def test_the_sdk_gets_a_completion_with_usage(sdk: Any) -> None:
    reply = await sdk.chat.completions.create(model="gpt-4o-mini", messages=USER)
    (choice,) = reply.choices
    assert choice.message.content.startswith(LABEL)
    assert "zx-81" in choice.message.content
    assert (choice.finish_reason, reply.model) == ("stop", "clasper-offline")
    assert reply.usage.completion_tokens == -(-len(choice.message.content) // 4)
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


async def test_the_sdk_streams_the_same_text(sdk: Any) -> None:
    whole = await sdk.chat.completions.create(model="m", messages=USER)
    stream = await sdk.chat.completions.create(
        model="m", messages=USER, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(deltas) == whole.choices[0].message.content
    assert len(deltas) > 3
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == "stop"


async def test_the_sdk_takes_tool_calls_round_and_gets_an_answer(sdk: Any, tools: Any) -> None:
    messages: list[Any] = [{"role": "user", "content": 'Create a task called "Launch"'}]
    first = await sdk.chat.completions.create(model="m", messages=messages, tools=tools)
    (call,) = first.choices[0].message.tool_calls
    assert first.choices[0].finish_reason == "tool_calls"
    assert (call.function.name, json.loads(call.function.arguments)) == (
        "create_task",
        {"title": "Launch"},
    )
    messages.append(first.choices[0].message.model_dump(exclude_none=True))
    messages.append(
        {"role": "tool", "tool_call_id": call.id, "content": '{"id": "t1", "title": "Launch"}'}
    )
    second = await sdk.chat.completions.create(model="m", messages=messages, tools=tools)
    assert second.choices[0].finish_reason == "stop"
    assert '`create_task` brought: {"id": "t1"' in second.choices[0].message.content


async def test_the_sdk_assembles_streamed_tool_calls(sdk: Any, tools: Any) -> None:
    messages: Any = [{"role": "user", "content": "Create a task called Launch and list my tasks"}]
    async with sdk.chat.completions.stream(model="m", messages=messages, tools=tools) as stream:
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["create_task", "list_tasks"]
    assert json.loads(calls[0].function.arguments) == {"title": "Launch"}
    assert final.choices[0].finish_reason == "tool_calls"


async def test_the_sdk_gets_json_for_a_response_format(sdk: Any) -> None:
    reply = await sdk.chat.completions.create(
        model="m", messages=USER, response_format={"type": "json_object"}
    )
    assert "zx-81" in json.loads(reply.choices[0].message.content)["reply"]


async def test_a_bad_request_is_the_sdks_bad_request_error(sdk: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.chat.completions.create(model="m", messages=[{"role": "robot", "content": "x"}])
    assert (caught.value.param, caught.value.type) == ("messages[0].role", "invalid_request_error")


async def test_the_sdk_lists_and_finds_models(sdk: Any) -> None:
    assert [model.id async for model in sdk.models.list()] == ["clasper-offline"]
    assert (await sdk.models.retrieve("vendor/any-model")).id == "vendor/any-model"


async def test_a_stream_is_server_sent_events_up_to_done(http: httpx2.AsyncClient) -> None:
    reply = await http.post("/v1/chat/completions", json={"messages": USER, "stream": True})
    events = reply.text.split("\n\n")
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(event.removeprefix("data: "))["id"] for event in events[:-2])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/images", 404), ("GET", "/", 404), ("GET", "/v1/chat/completions", 405)],
)
async def test_unknown_routes_answer_in_the_apis_error_shape(
    http: httpx2.AsyncClient, method: str, path: str, status: int
) -> None:
    reply = await http.request(method, path)
    error = reply.json()["error"]
    assert reply.status_code == status
    assert set(error) == {"message", "type", "param", "code"}
    assert path in error["message"]


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[1]"])
async def test_a_body_that_is_no_json_object_is_a_400(
    http: httpx2.AsyncClient, body: bytes
) -> None:
    reply = await http.post("/v1/chat/completions", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"


async def test_a_failure_of_our_own_is_a_500_without_peoples_text(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(request: object) -> None:
        raise RuntimeError("zx-81")

    monkeypatch.setattr(server, "decide", fail)
    reply = await http.post("/v1/chat/completions", json={"messages": USER})
    assert reply.status_code == 500
    assert reply.json()["error"]["type"] == "server_error"
    assert "zx-81" not in reply.text


async def test_health_says_ok(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/health")).json()["status"] == "ok"


async def test_the_last_requests_are_shown_as_they_came(http: httpx2.AsyncClient) -> None:
    bodies: list[Any] = [
        {"messages": USER, "stream": True},
        {"messages": []},
        {"messages": USER, "temperature": 0.3},
    ]
    for body in bodies:
        await http.post(
            "/v1/chat/completions", json=body, headers={"authorization": "Bearer s3cret"}
        )
    shown = (await http.get("/requests", params={"limit": 2})).json()
    assert shown["total"] == 3
    assert [item["body"] for item in shown["requests"]] == bodies[1:]
    everything = (await http.get("/requests")).json()["requests"]
    assert [item["streamed"] for item in everything] == [True, False, False]
    assert [item["number"] for item in everything] == [1, 2, 3]
    assert "s3cret" not in json.dumps(everything)


async def test_only_the_newest_requests_are_kept() -> None:
    async with http_client(create_app(OfflineModelConfig(requests_kept=2))) as client:
        for number in range(3):
            await client.post("/v1/chat/completions", json={"messages": USER, "seed": number})
        shown = (await client.get("/requests", params={"limit": 10})).json()
    assert [item["body"]["seed"] for item in shown["requests"]] == [1, 2]


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5"])
async def test_a_bad_limit_is_refused(http: httpx2.AsyncClient, limit: str) -> None:
    reply = await http.get("/requests", params={"limit": limit})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "limit")


async def test_latency_and_chunk_delay_are_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(server.asyncio, "sleep", sleep)  # type: ignore[attr-defined]
    app = create_app(OfflineModelConfig(latency=7.0, chunk_delay=0.5))
    async with http_client(app) as client:
        reply = await client.post("/v1/chat/completions", json={"messages": USER, "stream": True})
    chunks = reply.text.count("data: {")
    assert waits == [7.0, *[0.5] * (chunks - 1)]


async def test_many_requests_at_once_each_get_their_own_answer(sdk: Any) -> None:
    async def ask(number: int) -> bool:
        messages: Any = [{"role": "user", "content": f"Remark number <{number}>"}]
        reply = await sdk.chat.completions.create(model="m", messages=messages)
        return f"<{number}>" in reply.choices[0].message.content

    assert all(await asyncio.gather(*(ask(number) for number in range(20))))
