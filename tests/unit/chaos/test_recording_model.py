"""The recording model: OpenAI's API by the script, its faults, and what it remembers."""

import asyncio
import json
from typing import Any

import httpx2
import openai
import pytest

from tests.chaos.recording_model import ANSWERED, RECEIVED, STREAMING, RecordingModel
from tests.chaos.script import is_reply_to, message_for

TOKEN = "s001.02"


def asked(*, stream: bool = False, tool: bool = False) -> dict[str, Any]:
    messages = [{"role": "user", "content": message_for(TOKEN, tool=tool)}]
    return {"model": "m", "messages": messages, "stream": stream}


@pytest.fixture
async def model(start: Any) -> Any:
    return await start(RecordingModel(latency=0.0))


async def ask(model: Any, **how: bool) -> httpx2.Response:
    return await model.client.post("/w/w7/v1/chat/completions", json=asked(**how))


async def recorded(model: Any) -> list[dict[str, Any]]:
    return list((await model.records())["calls"])


async def test_it_answers_by_the_script_and_remembers_who_asked(model: Any) -> None:
    answer = (await ask(model)).json()["choices"][0]["message"]["content"]
    assert is_reply_to(TOKEN, answer)
    (call,) = await recorded(model)
    assert (call["token"], call["step"], call["worker"]) == (TOKEN, 1, "w7")
    assert call["outcome"] == "answered"
    assert call["at"] <= call["ended"]


@pytest.mark.parametrize("tool", [True, False])
async def test_the_openai_client_reads_the_stream(model: Any, tool: bool) -> None:
    url = f"{model.client.base_url}/w/w1/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(**{**asked(tool=tool), "stream": True})
        deltas = [chunk.choices[0].delta async for chunk in stream]
    text = "".join(delta.content or "" for delta in deltas)
    calls = [call for delta in deltas for call in delta.tool_calls or ()]
    assert bool(calls) == tool
    assert tool or is_reply_to(TOKEN, text)


async def test_a_stream_can_be_held_in_its_middle(start: Any) -> None:
    model = await start(RecordingModel(latency=0.0, pause=0.001))
    whole = (await ask(model, stream=True)).text
    await model.arm(STREAMING)
    call = asyncio.create_task(ask(model, stream=True))
    assert (await model.sprung())["token"] == TOKEN
    assert not call.done()
    await model.control.post("/release")
    assert (await call).text.count("data: ") == whole.count("data: ")
    assert [each["outcome"] for each in await recorded(model)] == ["answered"] * 2


async def test_a_stream_can_be_cut_in_its_middle(start: Any) -> None:
    model = await start(RecordingModel(latency=0.0, pause=0.001))
    await model.behave("half")
    with pytest.raises(httpx2.RemoteProtocolError):
        await ask(model, stream=True)
    assert [each["outcome"] for each in await recorded(model)] == ["cut"]


async def test_a_held_call_is_answered_once_it_is_released(model: Any) -> None:
    await model.arm(RECEIVED)
    call = asyncio.create_task(ask(model))
    hit = await model.sprung()
    assert (hit["token"], hit["worker"]) == (TOKEN, "w7")
    assert not call.done()
    await model.control.post("/release")
    assert (await call).status_code == 200


async def test_a_trap_for_another_worker_or_point_lets_calls_pass(model: Any) -> None:
    await model.arm(RECEIVED, worker="w8")
    assert (await ask(model)).status_code == 200
    assert await model.sprung(0.0) is None
    await model.arm(ANSWERED, hold=False)
    assert (await ask(model)).status_code == 200
    assert (await model.sprung())["token"] == TOKEN


async def test_a_caller_who_goes_away_is_remembered_as_such(model: Any) -> None:
    await model.arm(RECEIVED)
    call = asyncio.create_task(ask(model))
    await model.sprung()
    call.cancel()
    async with asyncio.timeout(30):
        while not await recorded(model):  # noqa: ASYNC110 - polled by HTTP
            await asyncio.sleep(0.01)
    assert [call["outcome"] for call in await recorded(model)] == ["abandoned"]


@pytest.mark.parametrize(
    ("kind", "status", "header"), [("error", 500, None), ("rate_limit", 429, "3")]
)
async def test_it_refuses_as_told(model: Any, kind: str, status: int, header: str | None) -> None:
    await model.behave(kind, seconds=3)
    answer = await ask(model)
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, header)
    assert [call["outcome"] for call in await recorded(model)] == ["refused"]


@pytest.mark.parametrize("kind", ["reset", "half"])
@pytest.mark.parametrize("stream", [True, False])
async def test_it_breaks_off_in_the_middle(model: Any, kind: str, stream: bool) -> None:
    await model.behave(kind)
    with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
        await ask(model, stream=stream)
    assert [call["outcome"] for call in await recorded(model)] == ["cut"]


async def test_it_is_down_for_open_and_new_connections_and_comes_back(model: Any) -> None:
    assert (await ask(model)).status_code == 200
    await model.behave("down")
    for _ in range(2):
        with pytest.raises(httpx2.TransportError):
            await ask(model)
    await model.behave()
    assert (await ask(model)).status_code == 200


async def test_a_share_of_the_calls_is_struck(model: Any) -> None:
    await model.behave("error", share=0.5)
    statuses = {(await ask(model)).status_code for _ in range(60)}
    assert statuses == {200, 500}
    counts = json.loads((await model.control.get("/counts")).content)
    assert 0 < counts["struck"] < counts["calls"] == 60
