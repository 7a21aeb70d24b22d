"""Values that the offline model makes for a JSON Schema."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.devkit.offline_model.json_instance import Instances


def instance(schema: Any, words: str = "") -> Any:
    return Instances(schema, words).make(schema)


@pytest.mark.parametrize(
    ("schema", "words", "value"),
    [
        ({"type": "string"}, "Hi", "Hi"),
        ({"type": "string", "maxLength": 2}, "Hello", "He"),
        ({"type": "string", "minLength": 4}, "Hi", "Hi.."),
        ({"type": "string", "format": "date"}, "Hi", "2000-01-01"),
        ({"type": ["null", "string"]}, "Hi", "Hi"),
        ({"type": "null"}, "Hi", None),
        ({"type": "boolean"}, "Hi", False),
        ({"type": "integer"}, "in 3 days, 2.5 hours", 3),
        ({"type": "number"}, "2.5 hours", 2.5),
        ({"type": "integer"}, "no number", 0),
        ({"type": "integer", "minimum": 5, "maximum": 9}, "3", 5),
        ({"type": "integer", "minimum": 5, "maximum": 9}, "30", 9),
        ({"type": "integer", "exclusiveMinimum": 5}, "", 6),
        ({"enum": ["low", "high"]}, "High please", "high"),
        ({"enum": ["low", "high"], "default": "high"}, "", "high"),
        ({"enum": ["low", "high"]}, "", "low"),
        ({"const": 7}, "8", 7),
        ({"type": "string", "default": "x"}, "Hi", "x"),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2}, "a", ["a", "a"]),
        ({"type": "array"}, "a", []),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, "4", 4),
        ({"allOf": [{"type": "integer"}, {"minimum": 2}]}, "", 2),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, "4", 4),
        ({"$ref": "#/$defs/missing"}, "a", "a"),
        ({"type": "object", "properties": {"a": {}, "b": {}}, "required": ["b"]}, "x", {"b": "x"}),
        ({"type": "object", "properties": {"a": {}}}, "x", {}),
        ({"type": "string", "pattern": "^(a+)+$"}, "a" * 40 + "!", "a" * 40 + "!"),
    ],
)
def test_the_smallest_value_that_fits_is_made_of_the_words(
    schema: Any, words: str, value: Any
) -> None:
    assert instance(schema, words) == value


def test_a_schema_that_requires_itself_many_times_ends() -> None:
    names = [f"p{number}" for number in range(10)]
    schema = {
        "type": "object",
        "properties": {name: {"$ref": "#"} for name in names},
        "required": names,
    }
    assert len(json.dumps(instance(schema))) < 100_000
    deep = {"type": "array", "minItems": 10**9, "items": {"$ref": "#"}}
    assert len(json.dumps(instance(deep))) < 100_000
    assert instance({"$ref": "#"}, "a") == "a"


WORDS = ("type", "properties", "required", "items", "minItems", "enum", "anyOf", "allOf", "$ref",
         "minimum", "maxLength", "minLength", "default", "format")  # fmt: skip


@given(
    schema=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.sampled_from(["string", "object", "array", "integer", "#", "#/items", "null"]),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_no_schema_makes_it_fail(schema: Any) -> None:
    json.dumps(instance(schema if isinstance(schema, dict) else {"items": schema}, "word 3"))
