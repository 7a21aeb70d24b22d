"""What the offline model's tests share: requests, tools, and a check of values against schemas."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from clasper_worker.devkit.offline_model.protocol import ChatRequest, parse_request

TEXT = {"type": "string"}


def function(name: str, properties: dict[str, Any], *required: str, about: str = "") -> Any:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
    return {
        "type": "function",
        "function": {"name": name, "description": about, "parameters": parameters},
    }


TOOLS = [
    function("create_task", {"title": {**TEXT, "maxLength": 60}, "description": TEXT}, "title"),
    function("list_tasks", {"limit": {"type": "integer", "minimum": 1}}),
    function(
        "create_document",
        {"title": TEXT, "content": {**TEXT, "minLength": 1}, "doc_type": TEXT, "task_id": TEXT},
        "title",
        "content",
    ),
    function("post_message", {"content": TEXT, "task_id": TEXT}, "content"),
    function("get_notifications", {}),
    function("get_weather", {"city": TEXT, "days": {"type": "integer"}}, "city", about="Forecast."),
    function("search", {"query": TEXT}, "query", about="Search the web."),
]


@pytest.fixture(scope="session")
def tools() -> list[Any]:
    """Mission Control's tools and two that the rules do not know."""
    return TOOLS


@pytest.fixture(scope="session")
def chat() -> Callable[..., ChatRequest]:
    """Make a request from the newest message, with history and settings as keywords."""

    def make(
        words: str, *, system: str = "", history: Any = (), after: Any = (), **fields: Any
    ) -> ChatRequest:
        messages = [{"role": "system", "content": system}] if system else []
        messages += [*history, {"role": "user", "content": words}, *after]
        return parse_request({"messages": messages, **fields})

    return make


@pytest.fixture(scope="session")
def round_trip() -> Callable[..., list[Any]]:
    """Messages of an assistant's calls and their results: pairs of (name, arguments, result)."""

    def make(*calls: tuple[str, str, str]) -> list[Any]:
        made = [
            {"id": f"c{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments, _) in enumerate(calls)
        ]
        results = [
            {"role": "tool", "tool_call_id": f"c{i}", "content": result}
            for i, (_, _, result) in enumerate(calls)
        ]
        return [{"role": "assistant", "content": None, "tool_calls": made}, *results]

    return make


_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


def violation(value: Any, schema: Any) -> str | None:
    """Why a value does not fit a JSON Schema (the subset that these tests use), or None."""
    if "const" in schema and value != schema["const"]:
        return f"{value!r} is not the const"
    if "enum" in schema and value not in schema["enum"]:
        return f"{value!r} is not in the enum"
    if "anyOf" in schema:
        return None if any(violation(value, item) is None for item in schema["anyOf"]) else "anyOf"
    kind = schema.get("type")
    kinds = kind if isinstance(kind, list) else [kind] if kind else []
    if kinds and not any(_is(value, name) for name in kinds):
        return f"{value!r} is not of type {kind}"
    for problem in (_in_text(value, schema), _in_number(value, schema), _inside(value, schema)):
        if problem:
            return problem
    return None


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _TYPES[name])


def _in_text(value: Any, schema: Any) -> str | None:
    if not isinstance(value, str):
        return None
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        return f"length {len(value)}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return f"{value!r} does not match the pattern"
    return None


def _in_number(value: Any, schema: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    low, high = schema.get("minimum", value), schema.get("maximum", value)
    above, below = (
        schema.get("exclusiveMinimum", value - 1),
        schema.get("exclusiveMaximum", value + 1),
    )
    fits = low <= value <= high and above < value < below
    return None if fits else f"{value} is out of bounds"


def _inside(value: Any, schema: Any) -> str | None:
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return f"{len(value)} items"
        problems = (violation(item, schema.get("items", {})) for item in value)
        return next((problem for problem in problems if problem), None)
    if isinstance(value, dict):
        known = schema.get("properties", {})
        missing = set(schema.get("required", ())) - value.keys()
        unknown = value.keys() - known.keys()
        if missing or (unknown and schema.get("additionalProperties") is False):
            return f"missing {missing}, unknown {unknown}"
        problems = (violation(value[name], part) for name, part in known.items() if name in value)
        return next((problem for problem in problems if problem), None)
    return None


@pytest.fixture(scope="session")
def check() -> Callable[[Any, Any], str | None]:
    """`violation`: why a value does not fit a schema, or None."""
    return violation
