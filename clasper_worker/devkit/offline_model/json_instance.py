"""A small value that fits a JSON Schema: a tool call's arguments, a structured reply.

Covers types, ``enum``, ``const``, ``default``, ``required``, ``items``, lengths, bounds, common
formats, ``anyOf``/``oneOf``/``allOf`` and local ``$ref``. A ``pattern`` is not met: to run an
expression from outside could take for ever.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Schema = Mapping[str, Any]

_MOST_VALUES = 2_000  # a schema that requires itself twice would grow without end
_MOST_DEPTH = 20
_NUMBER = re.compile(r"(?<![\w.])-?\d{1,15}(?:\.\d{1,15})?(?!\w)")
_COMBINING = frozenset({"$ref", "anyOf", "oneOf", "allOf"})
_BOUNDS: tuple[tuple[str, Callable[[float, float], float], int], ...] = (
    ("minimum", max, 0),
    ("exclusiveMinimum", max, 1),
    ("maximum", min, 0),
    ("exclusiveMaximum", min, -1),
)
_FORMATS = {
    "date-time": "2000-01-01T00:00:00Z",
    "date": "2000-01-01",
    "email": "nobody@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


class Instances:
    """Makes values that fit a schema and parts of it.

    Args:
        root: the whole schema, which references point into.
        words: what plain strings hold; numbers and members of an ``enum`` are taken from them
            where they name one.
    """

    def __init__(self, root: Schema, words: str) -> None:
        self._root = root
        self._words = words
        self._lower = words.lower()
        self._left = _MOST_VALUES

    def make(self, schema: Any, depth: int = 0) -> Any:
        """The smallest value that fits, with only what the schema requires."""
        self._left -= 1
        if self._left < 0 or depth > _MOST_DEPTH:
            return None
        schema = self.resolved(schema)
        members = schema.get("enum")
        if isinstance(members, list) and members:
            named = (member for member in members if str(member).lower() in self._lower)
            return next(named, schema.get("default", members[0]))
        kind = type_of(schema)
        value: Any = None
        if "const" in schema or "default" in schema:
            value = schema.get("const", schema.get("default"))
        elif kind == "object":
            known = self.properties(schema)
            names = [name for name in _list(schema.get("required")) if isinstance(name, str)]
            value = {name: self.make(known.get(name), depth + 1) for name in names}
        elif kind == "array":
            count = min(_count(schema.get("minItems"), 0), _MOST_VALUES)
            value = [self.make(schema.get("items"), depth + 1) for _ in range(count)]
        elif kind in {"integer", "number"}:
            value = self._number(schema, whole=kind == "integer")
        elif kind == "string":
            text = _FORMATS.get(str(schema.get("format")), self._words)
            text = text[: _count(schema.get("maxLength"), len(text))]
            value = text.ljust(_count(schema.get("minLength"), 0), ".")
        elif kind == "boolean":
            value = False
        return value

    def properties(self, schema: Any) -> dict[str, Schema]:
        """An object schema's named properties, resolved."""
        found = self.resolved(schema).get("properties")
        items = found.items() if isinstance(found, Mapping) else ()
        return {str(name): self.resolved(part) for name, part in items}

    def resolved(self, schema: Any) -> Schema:
        """The schema with references followed, ``allOf`` folded in, and of a choice the first."""
        for _ in range(_MOST_DEPTH):
            if not isinstance(schema, Mapping) or not _COMBINING & schema.keys():
                break
            choice = _list(schema.get("anyOf")) or _list(schema.get("oneOf"))
            useful = [part for part in choice if part != {"type": "null"}]
            both = _list(schema.get("allOf"))
            parts = [self._pointed_at(schema.get("$ref")), *useful[:1], *both]
            rest = {key: value for key, value in schema.items() if key not in _COMBINING}
            schema = {}
            for part in (*parts, rest):
                schema |= part if isinstance(part, Mapping) else {}
        return schema if isinstance(schema, Mapping) else {}

    def _pointed_at(self, reference: Any) -> Any:
        target: Any = self._root if isinstance(reference, str) else {}
        for key in filter(None, str(reference).removeprefix("#").split("/")):
            target = target.get(key) if isinstance(target, Mapping) else None
        return target

    def _number(self, schema: Schema, *, whole: bool) -> int | float:
        said = _NUMBER.search(self._words)
        number = float(said.group()) if said else 0.0
        for word, choose, gap in _BOUNDS:
            bound = _bound(schema.get(word))
            number = number if bound is None else choose(number, bound + gap)
        return math.floor(number) if whole else number


def type_of(schema: Schema) -> str:
    """A resolved schema's type; of several the first that is not null."""
    named = schema.get("type")
    if isinstance(named, list):
        named = next((item for item in named if item != "null"), "null")
    if isinstance(named, str):
        return named
    return "object" if "properties" in schema else "array" if "items" in schema else "string"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _bound(value: Any) -> float | None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6
    return float(value) if fits else None


def _count(value: Any, otherwise: int) -> int:
    return max(int(otherwise if (number := _bound(value)) is None else number), 0)
