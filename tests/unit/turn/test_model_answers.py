"""Turns with what models really send: signed thoughts, thoughts in the text, other refusals."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from clasper_worker.errors import ContextLengthError, EmptyReplyError
from clasper_worker.llm.fallback import ModelChain
from clasper_worker.periodic.heartbeat import is_quiet
from clasper_worker.turn.models import TurnIdentity, TurnResult
from clasper_worker.turn.request import parse_send_request
from clasper_worker.turn.run import TurnRun
from tests.unit.llm.model_server import (
    Answer,
    Body,
    ModelServer,
    Played,
    completion,
    model_of,
    refuses,
    says,
)
from tests.unit.turn.conftest import TurnHarness

TURN = TurnIdentity("turn-1", "job", "0" * 32)
ANOTHER = TurnIdentity("turn-2", "job", "0" * 32)
SIGNED = {
    "role": "assistant",
    "content": None,
    "reasoning_content": "So.",
    "tool_calls": [
        {
            "id": "",
            "type": "function",
            "function": {"name": "list_tasks", "arguments": {}},
            "extra_content": {"google": {"thought_signature": "xyz"}},
        },
        {"type": "function", "function": {"name": None, "arguments": ""}},
    ],
}


@asynccontextmanager
async def turn_with(
    harness: TurnHarness, *answers: Answer
) -> AsyncIterator[tuple[Callable[..., Any], ModelServer]]:
    async with model_of(*answers) as (model, server):
        deps = replace(harness.deps, model=lambda _: ModelChain([model]))

        async def run(turn: TurnIdentity = TURN, **fields: Any) -> TurnResult:
            request = {"user_id": "u1", "message": "Hello", "task_title": "Thread", **fields}
            return await TurnRun(parse_send_request(request), turn, deps).run()

        yield run, server


async def test_unknown_fields_go_back_within_the_turn_and_each_result_has_its_call(
    harness: TurnHarness,
) -> None:
    async with turn_with(harness, completion(SIGNED, "tool_calls"), says("Done.")) as (run, server):
        result = await run()
    assert (result.response, result.tool_calls) == ("Done.", 2)
    sent = server.asked[1]["messages"]
    said, *results = sent[-3:]
    assert said["reasoning_content"] == "So."
    first, second = said["tool_calls"]
    assert first["extra_content"] == {"google": {"thought_signature": "xyz"}}
    assert [item["tool_call_id"] for item in results] == [first["id"], second["id"]]
    assert first["id"] != second["id"]
    assert "unnamed_tool" in results[1]["content"]


async def test_a_later_run_of_the_turn_sends_the_very_same_back(harness: TurnHarness) -> None:
    dies = refuses(400, "no", code="other")
    async with turn_with(harness, completion(SIGNED, "tool_calls"), dies, says("Done.")) as (
        run,
        server,
    ):
        with pytest.raises(Exception, match="refused"):
            await run()
        assert (await run()).response == "Done."
    before, after = server.asked[1], server.asked[2]
    assert before["messages"] == after["messages"]
    assert "thought_signature" in str(after)


async def test_what_is_missing_in_the_usage_of_one_call_makes_the_cost_null(
    harness: TurnHarness,
) -> None:
    answers = (completion(SIGNED, "tool_calls", model="gpt-4o-mini"),
               completion({"content": "Hi"}, model="gpt-4o-mini", usage=None))  # fmt: skip
    async with turn_with(harness, *answers) as (run, _):
        result = await run()
    assert result.cost.totalCost is None
    assert "usage" in (result.cost.reason or "")


async def test_thoughts_are_not_posted_and_nothing_left_is_an_empty_reply(
    harness: TurnHarness,
) -> None:
    async with turn_with(harness, says("<think>secret</think>\nHi")) as (run, _):
        result = await run()
    assert await harness.messages(result.task_id) == ["Hi"]
    async with turn_with(harness, says("<think>secret</think>")) as (run, _):
        with pytest.raises(EmptyReplyError):
            await run(ANOTHER)


async def test_thoughts_do_not_hide_that_nothing_needs_attention() -> None:
    async with model_of(says("<think>All is well.</think>HEARTBEAT_OK")) as (model, _):
        assert is_quiet((await model.complete([])).text)


def window_of(tokens: int) -> Callable[[Body], Played]:
    """A model that counts a token for four characters, and says what it takes."""

    def answer(body: Body) -> Played:
        size = sum(len(message["content"] or "") for message in body["messages"]) // 4
        if size <= tokens:
            return says("Hi")
        return refuses(
            400,
            f"This model's maximum context length is {tokens} tokens. However, your messages"
            f" resulted in {size} tokens.",
            code="context_length_exceeded",
        )

    return answer


HISTORY = [{"role": role, "content": f"{number} " + "word " * 400}
           for number in range(20) for role in ("user", "assistant")]  # fmt: skip


@pytest.mark.parametrize("window", [12_000, 6_000, 4_000])
async def test_a_refusal_for_length_trims_the_history_and_asks_once_more(
    harness: TurnHarness, window: int
) -> None:
    async with turn_with(harness, window_of(window)) as (run, server):
        result = await run(messages=HISTORY)
    assert result.response == "Hi"
    assert len(server.asked) == 2
    assert "older messages did not fit" in (result.context_warning or "")
    kept = server.asked[1]["messages"]
    assert kept[-2]["content"] == HISTORY[-1]["content"]
    assert kept[1]["role"] == "user"


async def test_it_trims_where_the_provider_names_no_numbers(harness: TurnHarness) -> None:
    def answer(body: Body) -> Played:
        if len(body["messages"]) > 25:
            return refuses(413, "Payload too large")
        return says("Hi")

    async with turn_with(harness, answer) as (run, server):
        assert (await run(messages=HISTORY)).response == "Hi"
    assert len(server.asked) == 2


async def test_tool_calls_made_before_are_not_made_again(harness: TurnHarness) -> None:
    create = {"content": None, "tool_calls": [{"id": "1", "type": "function", "function": {
        "name": "create_task", "arguments": '{"title": "New"}'}}]}  # fmt: skip
    too_long = refuses(400, "prompt is too long: 9000 tokens > 8000 maximum")
    async with turn_with(harness, completion(create, "tool_calls"), too_long, says("Done.")) as (
        run,
        server,
    ):
        result = await run(messages=HISTORY)
    assert (result.response, result.tool_calls, len(server.asked)) == ("Done.", 1, 3)
    assert len(server.asked[2]["messages"]) < len(server.asked[1]["messages"])
    assert (await harness.titles()).count("New") == 1


async def test_where_nothing_can_be_trimmed_the_error_names_the_variable(
    harness: TurnHarness,
) -> None:
    async with turn_with(harness, window_of(1)) as (run, server):
        with pytest.raises(ContextLengthError, match="CLASPER_CONTEXT_WINDOW_TOKENS"):
            await run()
        assert len(server.asked) == 1
        with pytest.raises(ContextLengthError):
            await run(ANOTHER, messages=HISTORY)
    assert len(server.asked) == 3
