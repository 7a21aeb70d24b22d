from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.offline_model.json_schema import fitted, minimal


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (
            {"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["b"]},
            {"b": "unknown"},
        ),
        ({"properties": {"a": {"type": "integer"}}}, {"a": 0}),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "exclusiveMaximum": 0}, -1),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "integer", "multipleOf": 5, "minimum": 7}, 10),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [False, False]),
        ({"enum": ["b", "a"]}, "b"),
        ({"const": 7}, 7),
        ({"type": ["null", "string"]}, "unknown"),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 0),
        ({"type": "string", "format": "date"}, "2000-01-01"),
        ({"type": "string", "pattern": "^[A-Z]$"}, "A"),
        ({"type": "string", "maxLength": 3}, "unk"),
        ({"type": "integer", "default": 20}, 20),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "number", "minimum": 2}}}, 2),
        (
            {
                "allOf": [
                    {"properties": {"a": {"const": 1}}, "required": ["a"]},
                    {"properties": {"b": {"const": 2}}, "required": ["b"]},
                ]
            },
            {"a": 1, "b": 2},
        ),
    ],
)
def test_the_smallest_value_fits_its_schema(schema: Any, value: Any) -> None:
    assert minimal(schema, schema) == value


def test_a_schema_that_requires_itself_comes_to_an_end() -> None:
    schema = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
    assert "next" in minimal(schema, schema)


def test_a_reference_to_itself_comes_to_an_end() -> None:
    schema = {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}
    assert minimal(schema, schema) == "unknown"


@pytest.mark.parametrize(
    ("value", "schema", "fit"),
    [
        ("In Progress", {"enum": ["open", "in_progress"]}, "in_progress"),
        ("paused", {"enum": ["open", "in_progress"]}, None),
        ("42", {"type": "integer"}, 42),
        ("4.5", {"type": "integer"}, None),
        ("4.5", {"type": "number"}, 4.5),
        ("nan", {"type": "number"}, None),
        ("99", {"type": "integer", "maximum": 10}, 10),
        ("yes", {"type": "boolean"}, True),
        ("maybe", {"type": "boolean"}, None),
        ("a long title", {"type": "string", "maxLength": 6}, "a long"),
        ("tuesday", {"type": "string", "format": "date"}, None),
        ("tag", {"type": "array", "items": {"type": "string"}}, ["tag"]),
        (["1", "x", "2"], {"type": "array", "items": {"type": "integer"}}, [1, 2]),
        ({"a": 1}, {"type": "string"}, None),
        (None, {"type": "string"}, None),
    ],
)
def test_a_given_value_is_made_to_fit_or_refused(value: Any, schema: Any, fit: Any) -> None:
    assert fitted(value, schema, schema) == fit


def _schemas() -> st.SearchStrategy[Any]:
    whole = st.integers(0, 20)
    leaf = st.one_of(
        st.builds(
            lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more},
            whole,
            whole,
        ),
        st.builds(
            lambda kind, low, more: {"type": kind, "minimum": low, "maximum": low + more},
            st.sampled_from(["integer", "number"]),
            st.integers(-50, 50),
            whole,
        ),
        st.builds(
            lambda low, more: {
                "type": "number",
                "exclusiveMinimum": low,
                "exclusiveMaximum": low + more,
            },
            st.integers(-50, 50),
            st.floats(0.01, 9),
        ),
        st.sampled_from(
            [{"type": "boolean"}, {"type": "null"}, {"type": ["null", "integer"]}, {"const": "k"}]
        ),
        st.lists(st.text(max_size=5), min_size=1, max_size=3).map(lambda names: {"enum": names}),
    )
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(
                lambda items, low, more: {
                    "type": "array",
                    "items": items,
                    "minItems": low,
                    "maxItems": low + more,
                },
                inner,
                st.integers(0, 3),
                st.integers(0, 3),
            ),
            st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
            st.dictionaries(st.sampled_from("abcd"), inner, max_size=3).map(
                lambda known: {
                    "type": "object",
                    "properties": known,
                    "required": sorted(known)[:2],
                    "additionalProperties": False,
                }
            ),
        ),
        max_leaves=6,
    )


@given(schema=_schemas())
def test_the_smallest_value_fits_any_schema_of_the_covered_kind(schema: Any, check: Any) -> None:
    assert check(minimal(schema, schema), schema) is None


@given(
    schema=_schemas(),
    value=st.one_of(
        st.text(), st.integers(), st.floats(), st.lists(st.text(max_size=5), max_size=5)
    ),
)
def test_what_is_made_to_fit_fits(schema: Any, value: Any, check: Any) -> None:
    fit = fitted(value, schema, schema)
    assert fit is None or check(fit, schema) is None


KEYWORDS = (
    "type properties required items enum const anyOf allOf $ref minItems maxItems minimum maximum"
    " exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength pattern format a"
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYWORDS.split()), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    schema=st.dictionaries(st.sampled_from(["type", "properties", "items", "enum", "allOf"]), JSON)
    | JSON,
    value=JSON,
)
def test_a_malformed_schema_never_fails(schema: Any, value: Any) -> None:
    root = schema if isinstance(schema, dict) else {}
    minimal(schema, root)
    fitted(value, schema, root)
