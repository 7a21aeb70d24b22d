import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.devkit.offline_model.completion import (
    as_chunks,
    as_object,
    complete,
    estimated_tokens,
)
from clasper_worker.devkit.offline_model.rules import Decision, ToolCall

CALLS = Decision(
    tool_calls=(ToolCall("create_task", {"title": "Löwe"}), ToolCall("list_tasks", {}))
)


def test_tokens_are_a_quarter_of_the_characters_rounded_up() -> None:
    assert [estimated_tokens(text) for text in ("", "a", "abcd", "abcde")] == [0, 1, 1, 2]


def test_usage_counts_what_was_sent_and_answered(chat: Any, tools: Any) -> None:
    short = complete(chat("Hi"), Decision("12345678"))
    long = complete(chat("Hi" + "x" * 400, tools=tools), Decision("12345678"))
    assert short.usage == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}
    assert long.prompt_tokens > short.prompt_tokens + 100


def test_tool_calls_have_ids_of_their_own_and_json_arguments(chat: Any) -> None:
    message = as_object(complete(chat("Hi"), CALLS))["choices"][0]["message"]
    ids = [call["id"] for call in message["tool_calls"]]
    assert message["content"] is None
    assert len(set(ids)) == 2
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"title": "Löwe"}


def test_it_gives_its_own_name_whatever_model_was_asked_for(chat: Any) -> None:
    reply = as_object(complete(chat("Hi", model="gpt-x"), Decision("a")))
    assert reply["model"] == "clasper-offline"


def test_usage_comes_in_a_last_chunk_of_its_own(chat: Any) -> None:
    completion = complete(chat("Hi"), Decision("Hello"))
    *others, last = as_chunks(completion, include_usage=True)
    assert last["choices"] == []
    assert last["usage"] == completion.usage
    assert all(chunk["usage"] is None for chunk in others)
    assert all("usage" not in chunk for chunk in as_chunks(completion, include_usage=False))


@given(text=st.text(min_size=1))
def test_the_chunks_together_are_the_text(text: str, chat: Any) -> None:
    chunks = list(as_chunks(complete(chat("Hi"), Decision(text)), include_usage=False))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content") or "" for delta in deltas) == text
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * (
        len(chunks) - 1
    )


@given(title=st.text())
def test_the_argument_deltas_together_are_the_arguments(title: str, chat: Any) -> None:
    decision = Decision(tool_calls=(ToolCall("a", {"title": title}), ToolCall("b", {})))
    arguments = {0: "", 1: ""}
    for chunk in as_chunks(complete(chat("Hi"), decision), include_usage=False):
        for call in chunk["choices"][0]["delta"].get("tool_calls", []):
            arguments[call["index"]] += call["function"]["arguments"]
    assert json.loads(arguments[0]) == {"title": title}
    assert json.loads(arguments[1]) == {}
