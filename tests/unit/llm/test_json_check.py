"""JSON Schema from outside: checked as the standard says, in bounded time, from no network."""

import socket
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from clasper_worker.llm import json_check
from clasper_worker.llm.json_check import JsonCheck, SchemaRefusedError, TooMuchToCheckError

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}, "age": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "places"),
    [
        ({"name": "Ada", "age": 36}, []),
        ({"name": "ada"}, ["$.name"]),
        ({"age": "x"}, ["$", "$.age"]),
        ({"name": "Ada", "x": 1}, ["$.x"]),
        ([], ["$"]),
    ],
)
def test_a_value_is_checked_and_what_is_wrong_is_named_by_its_place(
    value: Any, places: list[str]
) -> None:
    assert sorted(where for where, _ in JsonCheck(PERSON).problems(value)) == places


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([1.0, "", "a", "ab", "b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "ab", "b"]), inner, max_size=3)
    ),
    max_leaves=8,
)
_SCHEMAS: st.SearchStrategy[dict[str, Any]] = st.deferred(
    lambda: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", "string", "integer"]),
            "properties": st.dictionaries(st.sampled_from(["a", "ab"]), _SCHEMAS, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), _SCHEMAS),
            "additionalProperties": st.booleans() | _SCHEMAS,
            "items": _SCHEMAS,
            "uniqueItems": st.booleans(),
            "pattern": st.sampled_from(["^a", "b$", "a.?b"]),
            "anyOf": st.lists(_SCHEMAS, min_size=1, max_size=2),
        },
    )
)


@given(_SCHEMAS, _VALUES)
def test_what_is_our_own_agrees_with_the_library(schema: dict[str, Any], value: Any) -> None:
    valid = Draft202012Validator(schema).is_valid(value)
    assert (JsonCheck(schema).problems(value) == []) == valid


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nothing"},
        {"properties": []},
        {"pattern": "("},
        {"pattern": "(?=a)"},
        {"patternProperties": {r"(a)\1": {}}},
        {"properties": {"a": {"items": [{"not": {"pattern": "(?<!a)"}}]}}},
        {"unevaluatedProperties": False},
        {"enum": list(range(json_check.MAX_SCHEMA_VALUES + 1))} | {"x-note": [[1]] * 2_001},
        {"description": "x" * (json_check.MAX_SCHEMA_CHARS + 1)},
        {"minimum": float("nan")},
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaRefusedError):
        JsonCheck(schema)


def test_a_property_may_be_called_as_a_keyword() -> None:
    schema = {"properties": {"pattern": {"type": "string"}, "unevaluatedItems": {}}}
    assert JsonCheck(schema).problems({"pattern": "(", "unevaluatedItems": 1}) == []
    assert JsonCheck({"enum": [{"pattern": "("}]}).problems({"pattern": "("}) == []


@pytest.mark.parametrize(
    "reference",
    ["http://127.0.0.1:1/x", "file:///etc/passwd", "#/$defs/none", "other.json", "#anchor"],
)
def test_a_reference_to_elsewhere_leads_nowhere(
    reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "create_connection", never)
    monkeypatch.setattr("builtins.open", never)
    with pytest.raises(SchemaRefusedError, match="leads to nothing"):
        JsonCheck({"$ref": reference}).problems(1)


def test_references_within_the_schema_and_older_drafts_are_followed() -> None:
    tree = {"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"}
    assert JsonCheck(tree).problems([[], [[]]]) == []
    assert JsonCheck(tree).problems([[1]])
    old = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]}
    assert JsonCheck(old).problems([1])
    assert JsonCheck(old | {"$schema": "http://127.0.0.1:1/mine", "items": {}}).problems([1]) == []


def test_a_schema_that_refers_to_itself_without_end_is_refused() -> None:
    with pytest.raises(SchemaRefusedError):
        JsonCheck({"$ref": "#"}).problems(1)


def doubling(levels: int) -> dict[str, Any]:
    defs: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2}
                            for n in range(levels)}  # fmt: skip
    return {"$defs": defs | {f"d{levels}": {"type": "string"}}, "$ref": "#/$defs/d0"}


def test_references_that_double_end_at_the_limit_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_check, "MAX_STEPS", 2_000)
    assert JsonCheck(doubling(6)).problems("x") == []
    with pytest.raises(TooMuchToCheckError):
        JsonCheck(doubling(40)).problems("x")


def test_a_check_ends_at_the_limit_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_check, "MAX_SECONDS", -1.0)
    with pytest.raises(TooMuchToCheckError):
        JsonCheck({"type": "string"}).problems("x")


def test_patterns_that_backtrack_elsewhere_take_linear_time() -> None:
    """An engine that backtracks would not live to see the end of these."""
    text = "a" * 50_000 + "!"
    hostile = {
        "pattern": "^(a+)+$",
        "patternProperties": {"^(a|a)*$": {}},
        "additionalProperties": {"type": "integer"},
    }
    assert JsonCheck(hostile).problems(text)
    assert JsonCheck(hostile).problems({text: 1}) == []


@pytest.mark.parametrize("extra", [{}, {"additionalProperties": True}])
def test_each_pattern_beside_each_property_is_a_step(
    monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]
) -> None:
    monkeypatch.setattr(json_check, "MAX_STEPS", 2_000)
    schema = extra | {"patternProperties": {f"^a{n}$": {} for n in range(100)}}
    assert JsonCheck(schema).problems({f"b{n}": 1 for n in range(5)}) == []
    with pytest.raises(TooMuchToCheckError):
        JsonCheck(schema).problems({f"b{n}": 1 for n in range(100)})


def test_items_that_differ_are_told_apart_without_comparing_each_with_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)  # of however slow a machine
    check = JsonCheck({"uniqueItems": True})
    many = [{"n": n} for n in range(20_000)]
    assert check.problems(many) == []
    assert check.problems([*many, {"n": 7.0}])
    assert check.problems([1, True, "1", [1], 0, False]) == []


def test_no_more_problems_are_told_than_help() -> None:
    check = JsonCheck({"items": {"type": "string"}})
    assert len(check.problems([1] * 100)) == json_check.MAX_PROBLEMS
    ((_, what),) = JsonCheck({"const": 1}).problems("x" * 10_000)
    assert len(what) <= 300
