"""Checking JSON against a JSON Schema that came from outside: in bounded time, from no network.

``jsonschema`` does the checking. Its keywords that match regular expressions are replaced by ones
on RE2, which takes linear time, and each step counts towards a limit, since a few hundred bytes of
references can ask for more steps than there is time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any

import re2
from jsonschema import (
    Draft4Validator,
    Draft6Validator,
    Draft7Validator,
    Draft201909Validator,
    Draft202012Validator,
    SchemaError,
    ValidationError,
    validators,
)
from referencing import Registry
from referencing.exceptions import Unresolvable

from clasper_worker.engine.queue.wellformed import measure

MAX_SCHEMA_CHARS = 100_000
MAX_SCHEMA_VALUES = 2_000  # `jsonschema` takes half a millisecond for each
MAX_STEPS = 200_000
MAX_SECONDS = 2.0
MAX_PROBLEMS = 8

_PROBLEM_CHARS = 300
_PATTERN_BYTES = 1 << 20  # of memory for one compiled pattern
# Of the first two, `jsonschema` matches patterns itself, with regular expressions that backtrack.
_UNCHECKED = frozenset(
    {"unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef"}
)
_DRAFTS = {
    "http://json-schema.org/draft-04/schema": Draft4Validator,
    "http://json-schema.org/draft-06/schema": Draft6Validator,
    "http://json-schema.org/draft-07/schema": Draft7Validator,
    "https://json-schema.org/draft/2019-09/schema": Draft201909Validator,
}
_DATA = frozenset({"const", "enum", "default", "examples"})


class SchemaRefusedError(Exception):
    """A schema that cannot be used; says why, without what stands in it."""


class TooMuchToCheckError(Exception):
    """The check took more steps or time than it may."""


class JsonCheck:
    """One schema, ready to check values against.

    Args:
        schema: the schema; draft 2020-12, or an older one that its ``$schema`` names.

    Raises:
        SchemaRefusedError: it is no JSON Schema, too large, or needs what is not checked here.
    """

    def __init__(self, schema: Mapping[str, Any] | bool) -> None:
        characters, problems = measure(schema)
        if characters > MAX_SCHEMA_CHARS or problems:
            raise SchemaRefusedError("is too large, too deep or holds a number that is not finite")
        _refuse_unchecked(schema)
        draft = str(schema.get("$schema")).rstrip("#") if isinstance(schema, Mapping) else ""
        base: Any = _DRAFTS.get(draft, Draft202012Validator)
        try:
            base.check_schema(schema)
        except SchemaError as exc:
            place = "/".join(map(str, exc.absolute_path))[:_PROBLEM_CHARS]
            raise SchemaRefusedError(f"is not a JSON Schema, at {place or 'its root'}") from None
        except RecursionError:
            raise SchemaRefusedError("is nested too deep") from None
        self._schema = schema
        self._base = base

    def problems(self, value: Any) -> list[tuple[str, str]]:
        """What is wrong with a value: where, and what; both may quote it.

        Blocks for `MAX_SECONDS` at most: call it in a thread.

        Raises:
            SchemaRefusedError: the schema leads nowhere, or to itself without end.
            TooMuchToCheckError: it takes too long.
        """
        budget = _Budget(MAX_STEPS, time.monotonic() + MAX_SECONDS)
        ours = {name: partial(check, budget.matches) for name, check in _WITH_PATTERNS.items()}
        keywords = {
            name: budget.spent_on(ours.get(name, check))
            for name, check in {**self._base.VALIDATORS, "uniqueItems": _unique}.items()
        }
        # The registry is empty, and so a reference to elsewhere leads nowhere.
        checker = validators.extend(self._base, keywords)(self._schema, registry=Registry())
        found: list[tuple[str, str]] = []
        try:
            for error in checker.iter_errors(value):
                found.append((error.json_path[:_PROBLEM_CHARS], error.message[:_PROBLEM_CHARS]))
                if len(found) >= MAX_PROBLEMS:
                    break
        except RecursionError:
            raise SchemaRefusedError("refers to itself without end") from None
        except Unresolvable:
            raise SchemaRefusedError("has a $ref that leads to nothing in it") from None
        return found


class _Budget:
    def __init__(self, steps: int, deadline: float) -> None:
        self._steps = steps
        self._deadline = deadline

    def spent_on(self, check: Callable[..., Any]) -> Callable[..., Iterator[ValidationError]]:
        """A keyword's check that counts what it does."""

        def counted(
            validator: Any, value: Any, instance: Any, schema: Any
        ) -> Iterator[ValidationError]:
            self._spend(1 + (_size(value) + _size(instance)) // 8)
            yield from check(validator, value, instance, schema) or ()

        return counted

    def matches(self, pattern: str, text: str) -> bool:
        """Whether a pattern is found in a text: a step, since a keyword may ask for each pair."""
        self._spend(1)
        return _compiled(pattern).search(text) is not None

    def _spend(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0 or time.monotonic() > self._deadline:
            raise TooMuchToCheckError


_Matches = Callable[[str, str], bool]


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value) // 64
    return len(value) if isinstance(value, list | dict) else 0


def _pattern(
    matches: _Matches, validator: Any, pattern: Any, instance: Any, _: Any
) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not matches(pattern, instance):
        yield ValidationError(f"does not match {pattern!r}")


def _pattern_properties(
    matches: _Matches, validator: Any, patterns: Any, instance: Any, _: Any
) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, schema in patterns.items():
        for name, value in instance.items():
            if matches(pattern, name):
                yield from validator.descend(value, schema, path=name, schema_path=pattern)


def _additional(
    matches: _Matches, validator: Any, extra: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, value in instance.items():
        if name in known or any(matches(pattern, name) for pattern in patterns):
            continue
        if extra is False:
            yield ValidationError(f"must not have the property {name!r}", path=(name,))
        else:
            yield from validator.descend(value, extra, path=name)


def _unique(validator: Any, wanted: Any, instance: Any, _: Any) -> Iterator[ValidationError]:
    if wanted and validator.is_type(instance, "array"):
        seen = {json.dumps(_by_value(item), sort_keys=True) for item in instance}
        if len(seen) < len(instance):
            yield ValidationError("has an item twice")


def _by_value(value: Any) -> Any:
    """With 1 and 1.0 the same, as JSON Schema has them."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_by_value(item) for item in value]
    if isinstance(value, dict):
        return {name: _by_value(item) for name, item in value.items()}
    return value


_WITH_PATTERNS: dict[str, Callable[..., Any]] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional,
}


def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PATTERN_BYTES
    return options


_RE2 = _options()


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    return re2.compile(pattern, _RE2)


def _refuse_unchecked(schema: Any) -> None:
    """Refuse what is not checked in bounded time, wherever it stands.

    A property may be called as a keyword, so that what stands under ``properties`` is no keyword.
    """
    left: list[tuple[Any, bool]] = [(schema, True)]
    seen = 0
    while left:
        item, has_keywords = left.pop()
        seen += 1
        if seen > MAX_SCHEMA_VALUES:
            raise SchemaRefusedError(f"has more than {MAX_SCHEMA_VALUES:,} values")
        if isinstance(item, list):
            left.extend((inner, True) for inner in item)
        elif isinstance(item, dict) and not has_keywords:
            left.extend((inner, True) for inner in item.values())
        elif isinstance(item, dict):
            for name, inner in item.items():
                _refuse_keyword(name, inner)
                if name not in _DATA:
                    by_name = name in {"properties", "$defs", "definitions", "patternProperties"}
                    left.append((inner, not by_name and name != "dependentSchemas"))


def _refuse_keyword(name: str, value: Any) -> None:
    if name in _UNCHECKED:
        raise SchemaRefusedError(f"uses {name}, which is not checked here: leave it out")
    patterns = [value] if name == "pattern" else []
    if name == "patternProperties" and isinstance(value, dict):
        patterns = list(value)
    for pattern in patterns:
        try:
            _compiled(pattern)
        except (re2.error, TypeError, UnicodeEncodeError):
            raise SchemaRefusedError(
                f"has a {name} that cannot be matched in linear time, or is no regular"
                " expression: leave out lookaround and back references"
            ) from None
