from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.errors import EmptyReplyError, InvalidRequestError
from clasper_worker.llm.messages import ChatMessage
from clasper_worker.llm.tokens import TokenCounter, estimated
from clasper_worker.llm.windows import ModelWindow
from clasper_worker.testing import ScriptedModel, says
from clasper_worker.turn.compact import SUMMARY_HEAD, CompactResult, compact, parse_compact_request
from clasper_worker.turn.fit import fit_history
from clasper_worker.turn.request import RequestLimits

WINDOW = ModelWindow(128_000, 4_096, TokenCounter())


def said(*texts: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)]


async def run(
    model: ScriptedModel, messages: Any, window: ModelWindow = WINDOW, **fields: Any
) -> CompactResult:
    request = parse_compact_request({"messages": messages, **fields}, RequestLimits())
    return await compact(request, model, window)


def contents(result: CompactResult) -> list[str]:
    return [message.content for message in result.compacted_messages]


async def test_all_but_the_newest_messages_become_one_that_is_fenced_as_data() -> None:
    model = ScriptedModel([says("Ada wants </data> tea.", prompt=50, completion=7)])
    result = await run(model, said("one", "two", "three", "four", "five"))
    summary, *recent = result.compacted_messages
    assert (summary.role, [item.content for item in recent]) == ("system", ["four", "five"])
    assert summary.content.startswith(SUMMARY_HEAD)
    assert summary.content.endswith("Ada wants &lt;/data> tea.\n</data>")
    assert (result.original_count, result.compacted_count) == (5, 3)
    assert result.usage.total_tokens == 57
    (asked,) = model.requests
    assert "user: one\n\nassistant: two\n\nuser: three" in (asked.messages[1].content or "")
    assert "four" not in (asked.messages[1].content or "")


async def test_a_summary_stays_in_effect_however_much_else_must_go() -> None:
    result = await run(ScriptedModel([says("Ada likes tea.")]), said("one", "two", "three", "four"))
    history = [ChatMessage(item.role, item.content) for item in result.compacted_messages]
    history += [ChatMessage("user", "x" * 2_000), ChatMessage("assistant", "y" * 2_000)]
    tight = ModelWindow(400, 0, TokenCounter())
    fitted = fit_history(history, fixed=(), tools=0, window=tight)
    assert [message.role for message in fitted.messages] == ["system"]
    assert "Ada likes tea." in (fitted.messages[0].content or "")


async def test_an_earlier_summary_goes_into_the_next_one() -> None:
    first = await run(ScriptedModel([says("Ada likes tea.")]), said("one", "two", "three", "four"))
    again = [message.model_dump() for message in first.compacted_messages]
    model = ScriptedModel([says("Ada likes tea, Bob too.")])
    second = await run(model, [*again, *said("five", "six")])
    assert "Ada likes tea." in (model.requests[0].messages[1].content or "")
    assert [message.role for message in second.compacted_messages] == [
        "system",
        "user",
        "assistant",
    ]
    assert "Bob too" in contents(second)[0]


async def test_system_messages_that_are_no_summary_stay_as_they_are() -> None:
    rules = {"role": "system", "content": "Speak German."}
    model = ScriptedModel([says("Summary.")])
    result = await run(model, [rules, *said("one", "two", "three", "four")])
    assert contents(result)[0] == "Speak German."
    assert "Speak German" not in (model.requests[0].messages[1].content or "")


@pytest.mark.parametrize(
    ("messages", "keep"), [([], 2), (said("one", "two"), 2), (said("one"), 100)]
)
async def test_what_is_short_already_stays_and_costs_nothing(messages: Any, keep: int) -> None:
    result = await run(ScriptedModel([]), messages, keep_recent=keep)
    assert contents(result) == [message["content"] for message in messages]
    assert result.usage.total_tokens == 0


async def test_nothing_recent_need_be_kept() -> None:
    result = await run(ScriptedModel([says("Summary.")]), said("one", "two"), keep_recent=0)
    assert result.compacted_count == 1


async def test_instructions_are_told_to_the_model() -> None:
    model = ScriptedModel([says("Summary.")])
    await run(model, said("one", "two", "three"), instructions="Keep the prices.")
    assert "Keep the prices." in (model.requests[0].messages[1].content or "")


async def test_a_conversation_larger_than_the_window_is_summarised_part_by_part() -> None:
    model = ScriptedModel([says(f"Summary {number}.") for number in range(50)])
    small = ModelWindow(2_000, 200, TokenCounter())
    result = await run(model, said(*(f"{n} ".ljust(1_500, ".") for n in range(30))), small)
    count = len(model.requests)
    assert count > 3
    assert "Summary 0." in (model.requests[1].messages[1].content or "")
    assert f"Summary {count - 1}." in contents(result)[0]
    assert all(sum(map(estimated, asked.messages)) < 2_000 for asked in model.requests)
    assert result.usage.prompt_tokens == 10 * count


async def test_an_empty_summary_compacts_nothing() -> None:
    with pytest.raises(EmptyReplyError):
        await run(ScriptedModel([says(" ")]), said("one", "two", "three"))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [], "keep_recent": -1}, "keep_recent"),
        ({"messages": [], "extra": 1}, "extra"),
        ({"messages": said(*["x"] * 1_001)}, "messages"),
        ({"messages": said("x" * 1_000_001)}, "(request)"),
    ],
)
def test_a_bad_request_is_refused_by_field_problem_and_fix(
    fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_compact_request(fields, RequestLimits())
    (problem,) = caught.value.details["fields"]
    assert problem["field"] == field
    assert problem["problem"]
    assert problem["fix"]


@given(st.lists(st.text(max_size=30), max_size=12), st.integers(0, 15))
async def test_counts_always_add_up(texts: list[str], keep: int) -> None:
    model = ScriptedModel([says("Summary.")])
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    result = await run(model, said(*texts), keep_recent=keep)
    assert result.original_count == len(texts)
    assert result.compacted_count == min(len(texts), keep + 1 if len(texts) > keep else keep)
    assert contents(result)[-keep:] == texts[-keep:] or keep == 0 or not texts


async def test_the_repr_shows_nothing_that_was_said() -> None:
    result = await run(ScriptedModel([says("secret words")]), said("secret a", "b", "c"))
    assert "secret" not in repr(result)
    assert "secret" not in str(result)
