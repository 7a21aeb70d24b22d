import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.offline_model.conversation import LABEL
from clasper_worker.offline_model.rules import decide

TEXT = {"type": "string"}
PERSON = {
    "type": "object",
    "properties": {
        "name": TEXT,
        "age": {"type": "integer"},
        "mood": {"type": "string", "enum": ["happy", "sad"]},
        "note": TEXT,
        "tags": {"type": "array", "items": TEXT},
    },
    "required": ["name", "age", "mood", "note", "tags"],
    "additionalProperties": False,
}


def json_schema(schema: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def test_a_schema_is_filled_from_the_words(chat: Any, check: Any) -> None:
    words = "Extract the person. name: Ada Lovelace, age: 36. She is sad."
    value = json.loads(decide(chat(words, response_format=json_schema(PERSON))).text)
    assert check(value, PERSON) is None
    assert (value["name"], value["age"], value["mood"]) == ("Ada Lovelace", 36, "sad")
    assert value["note"].startswith(LABEL)


def test_a_schema_is_filled_from_json_in_the_words(chat: Any) -> None:
    words = 'Describe this input:\n{"name": "Grace", "age": 85, "mood": "happy"}'
    value = json.loads(decide(chat(words, response_format=json_schema(PERSON))).text)
    assert (value["name"], value["age"], value["mood"]) == ("Grace", 85, "happy")


def test_any_json_object_tells_what_was_asked(chat: Any) -> None:
    text = decide(chat("Classify zx-81", response_format={"type": "json_object"})).text
    assert "zx-81" in json.loads(text)["reply"]


def test_a_schema_written_into_the_words_is_met(chat: Any) -> None:
    words = (
        'Respond only with JSON that matches {"type": "object", "properties": {"score": '
        '{"type": "number", "maximum": 1}, "sentiment": {"enum": ["positive", "negative"]}}}\n'
        "Text: I feel negative, 0.4"
    )
    assert json.loads(decide(chat(words)).text) == {"score": 0.4, "sentiment": "negative"}


def test_tools_are_called_before_json_is_answered(chat: Any, tools: Any) -> None:
    decision = decide(chat("list my tasks", tools=tools, response_format=json_schema(PERSON)))
    assert [call.name for call in decision.tool_calls] == ["list_tasks"]


@pytest.mark.parametrize("words", ["What is JSON?", "Explain why only some APIs use JSON"])
def test_talk_about_json_is_answered_as_text(chat: Any, words: str) -> None:
    assert decide(chat(words)).text.startswith(LABEL)


@given(words=st.text(max_size=100))
def test_any_words_give_json_that_fits(words: str, chat: Any, check: Any) -> None:
    value = json.loads(decide(chat(words, response_format=json_schema(PERSON))).text)
    assert check(value, PERSON) is None
