"""Values that fit a JSON Schema: the smallest one, or one made from a value that was given.

Covers what tools and structured outputs use: ``type``, ``enum``, ``const``, ``default``,
``properties``, ``required``, ``items``, lengths, bounds, ``format``, ``anyOf``/``oneOf``/
``allOf`` and local ``$ref``. A ``pattern`` is met where one of a few plain strings meets it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

Schema = Mapping[str, Any]
Hint = Callable[[str, Schema], Any]
"""Given a property's name and its schema, a value for it, or None for none."""

_FORMATS = {
    "date-time": "2000-01-01T00:00:00Z",
    "date": "2000-01-01",
    "time": "00:00:00Z",
    "email": "nobody@example.com",
    "uri": "https://example.com/",
    "url": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "hostname": "example.com",
}
_SHAPES = {
    "date-time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)",
    "date": r"\d{4}-\d\d-\d\d",
    "time": r"\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)",
    "email": r"[^@\s]+@[^@\s]+\.[^@\s]+",
    "uri": r"[A-Za-z][A-Za-z0-9+.-]*:\S+",
    "url": r"https?://\S+",
    "uuid": r"(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
}
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_PLAIN_STRINGS = ("unknown", "a", "A", "0", "1", "00", "0000", "2000-01-01", "00:00", "a-1", "A1")
_MAX_DEPTH = 12  # a schema that requires itself has no finite instance
_MAX_COUNT = 1_000


def resolved(schema: Any, root: Schema, depth: int = 0) -> Schema:
    """The schema with local references and ``allOf`` folded in, and a choice's first option."""
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return {}
    reference = schema.get("$ref")
    if isinstance(reference, str):
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return resolved({**_pointed_at(reference, root), **rest}, root, depth + 1)
    if parts := _options(schema, "allOf"):
        rest = {key: value for key, value in schema.items() if key != "allOf"}
        return resolved(_merged((*parts, rest), root, depth), root, depth + 1)
    if options := _options(schema, "anyOf") or _options(schema, "oneOf"):
        rest = {key: value for key, value in schema.items() if key not in {"anyOf", "oneOf"}}
        return {**rest, **_first_with_content(options, root, depth)}
    return schema


def type_of(schema: Schema) -> str:
    """The schema's type; of several, the first that is not null; guessed where none is named."""
    named = schema.get("type")
    if isinstance(named, list):
        named = next((item for item in named if item != "null"), "null")
    if isinstance(named, str):
        return named
    if "properties" in schema or "required" in schema:
        return "object"
    return "array" if "items" in schema else "string"


def minimal(schema: Any, root: Schema, hint: Hint | None = None, depth: int = 0) -> Any:
    """The smallest value that fits, with ``hint``'s values where they fit.

    Args:
        schema: what the value must fit.
        root: the whole schema, where ``$ref`` points into.
        hint: proposes values for properties.
        depth: how deep in the schema this is.
    """
    schema = resolved(schema, root)
    fixed = [schema[word] for word in ("const", "default") if word in schema] or _enum(schema)
    if fixed:
        return fixed[0]
    kind = type_of(schema)
    if kind == "object" and depth < _MAX_DEPTH:
        return _minimal_object(schema, root, hint, depth)
    if kind == "array":
        count = _whole(schema.get("minItems"))
        return [minimal(schema.get("items", {}), root, hint, depth + 1) for _ in range(count)]
    if kind in {"integer", "number"}:
        return _nearest(0, schema)
    return _minimal_string(schema) if kind == "string" else {"boolean": False}.get(kind)


def fitted(value: Any, schema: Any, root: Schema) -> Any:
    """The value made to fit the schema, or None where it cannot be."""
    schema = resolved(schema, root)
    kind = type_of(schema)
    if value is None or "const" in schema:
        return schema.get("const")
    if members := _enum(schema):
        return _enum_member(value, members)
    if kind == "array":
        return _fitted_array(value, schema, root)
    if isinstance(value, list | dict):
        return value if kind == "object" and isinstance(value, dict) else None
    return _fitted_scalar(value, schema, kind)


def properties(schema: Schema) -> dict[str, Any]:
    """The named properties of a resolved object schema; empty where it names none."""
    found = schema.get("properties")
    return dict(found) if isinstance(found, Mapping) else {}


def required(schema: Schema) -> tuple[str, ...]:
    """The names of a resolved object schema's required properties."""
    found = schema.get("required")
    return tuple(name for name in found if isinstance(name, str)) if _is_list(found) else ()


def _pointed_at(reference: str, root: Schema) -> Schema:
    target: Any = root
    for key in reference.removeprefix("#").strip("/").split("/"):
        if key:
            target = target.get(key) if isinstance(target, Mapping) else None
    return target if isinstance(target, Mapping) else {}


def _options(schema: Schema, keyword: str) -> tuple[Any, ...]:
    options = schema.get(keyword)
    return tuple(options) if isinstance(options, list) else ()


def _merged(parts: tuple[Any, ...], root: Schema, depth: int) -> Schema:
    merged: dict[str, Any] = {}
    for part in parts:
        piece = resolved(part, root, depth + 1)
        known = {**properties(merged), **properties(piece)}
        names = [*required(merged), *required(piece)]
        merged |= piece
        merged |= {"properties": known} if known else {}
        merged |= {"required": names} if names else {}
    return merged


def _first_with_content(options: tuple[Any, ...], root: Schema, depth: int) -> Schema:
    for option in options:
        schema = resolved(option, root, depth + 1)
        if schema.get("type") != "null":
            return schema
    return {"type": "null"}


def _minimal_object(schema: Schema, root: Schema, hint: Hint | None, depth: int) -> Any:
    known = properties(schema)
    value = {}
    for name in required(schema) if "required" in schema else known:
        part = resolved(known.get(name, {}), root)
        proposed = fitted(hint(name, part), part, root) if hint else None
        value[name] = minimal(part, root, hint, depth + 1) if proposed is None else proposed
    return value


def _minimal_string(schema: Schema) -> str:
    plain = _FORMATS.get(str(schema.get("format")))
    for candidate in (plain,) if plain else _PLAIN_STRINGS:
        text = _fitted_string(candidate, schema)
        if text is not None:
            return text
    return plain or _PLAIN_STRINGS[0]


def _fitted_scalar(value: Any, schema: Schema, kind: str) -> Any:
    if kind == "string":
        return _fitted_string(str(value), schema)
    if kind == "boolean":
        return _BOOLEANS.get(str(value).strip().lower())
    return _fitted_number(value, schema) if kind in {"integer", "number"} else None


def _fitted_string(text: str, schema: Schema) -> str | None:
    at_least, at_most = _whole(schema.get("minLength")), _number(schema.get("maxLength"))
    if at_most is not None and at_most >= 0:
        text = text[: int(at_most)]
    if len(text) < at_least and not schema.get("pattern") and not schema.get("format"):
        text = text.ljust(at_least, ".")
    if len(text) < at_least or not _matches(schema.get("pattern"), text):
        return None
    return text if _has_format(text, str(schema.get("format"))) else None


def _has_format(text: str, name: str) -> bool:
    return name not in _SHAPES or re.fullmatch(_SHAPES[name], text) is not None


def _matches(pattern: Any, text: str) -> bool:
    if not isinstance(pattern, str):
        return True
    try:
        return re.search(pattern, text) is not None
    except re.error:  # ECMA syntax that Python's lacks: cannot be checked here
        return True


def _fitted_number(value: Any, schema: Schema) -> int | float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(number) or (type_of(schema) == "integer" and not number.is_integer()):
        return None
    return _nearest(int(number) if number.is_integer() else number, schema)


def _nearest(number: float, schema: Schema) -> int | float:
    """The nearest number that the schema's bounds allow."""
    whole = type_of(schema) == "integer"
    step = _number(schema.get("multipleOf")) or (1 if whole else 0)
    low, high = _number(schema.get("minimum")), _number(schema.get("maximum"))
    above, below = _number(schema.get("exclusiveMinimum")), _number(schema.get("exclusiveMaximum"))
    room = (below - above) / 2 if above is not None and below is not None else 1
    gap = step if step > 0 else min(1, room)
    lows = [bound for bound in (low, None if above is None else above + gap) if bound is not None]
    highs = [bound for bound in (high, None if below is None else below - gap) if bound is not None]
    number = max([number, *lows])
    number = min([number, *highs])
    if step > 0:
        number = math.ceil(number / step) * step
        if highs and number > min(highs):
            number = math.floor(min(highs) / step) * step
    return int(number) if whole else number


def _fitted_array(value: Any, schema: Schema, root: Schema) -> list[Any] | None:
    given = value if isinstance(value, list) else [value]
    items = [fitted(item, schema.get("items", {}), root) for item in given]
    items = [item for item in items if item is not None]
    at_most = _number(schema.get("maxItems"))
    items = items if at_most is None else items[: int(at_most)]
    missing = _whole(schema.get("minItems")) - len(items)
    items += [minimal(schema.get("items", {}), root) for _ in range(missing)]
    return items or None


def _enum(schema: Schema) -> list[Any]:
    members = schema.get("enum")
    return members if isinstance(members, list) else []


def _enum_member(value: Any, members: list[Any]) -> Any:
    wanted = _plain(value)
    return next((member for member in members if _plain(member) == wanted), None)


def _plain(value: Any) -> str:
    return re.sub(r"[\s_-]+", "_", str(value).strip().lower())


def _whole(value: Any) -> int:
    """A count that a schema gives; 0 where it gives none, or one beyond all sense."""
    number = _number(value)
    return int(number) if number is not None and 0 < number < _MAX_COUNT else 0


def _number(value: Any) -> float | None:
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    return value if fits and math.isfinite(value) else None


def _is_list(value: Any) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    return isinstance(value, list | tuple)
