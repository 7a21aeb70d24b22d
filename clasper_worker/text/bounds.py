"""How much an error may say: it is stored, logged and sent on, whatever it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

MAX_MESSAGE_CHARS = 8_000
MAX_FIELDS = 20
"""Bad fields that one error names; of the others it tells how many they are."""

_MAX_NAME_CHARS = 200
_MAX_TEXT_CHARS = 1_000
_MAX_ITEMS = 100  # of a list or an object within an error's details
_MAX_DEPTH = 6
_CUT = "… [cut]"


def shortened(text: str, limit: int = MAX_MESSAGE_CHARS) -> str:
    """The text, cut and marked as such where it has more than ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT


def bounded(value: Any, depth: int = 0) -> Any:
    """A JSON value of an error's details, cut to a few thousand characters at most of each part."""
    if isinstance(value, str):
        return shortened(value, _MAX_TEXT_CHARS)
    if isinstance(value, Mapping):
        if depth >= _MAX_DEPTH:
            return {}
        return {
            shortened(str(name), _MAX_NAME_CHARS): bounded(item, depth + 1)
            for name, item in islice(value.items(), _MAX_ITEMS)
        }
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        if depth >= _MAX_DEPTH:
            return []
        return [bounded(item, depth + 1) for item in islice(value, _MAX_ITEMS)]
    return value


def told_problems(problems: Iterable[Mapping[str, str]]) -> tuple[str, dict[str, Any]]:
    """What is wrong with some fields, as a text and as an error's details.

    Args:
        problems: each ``field``, ``problem`` and, where there is one, ``fix``.

    Returns:
        ``field: problem (fix); …``, and ``{"fields": […]}`` with ``more``, how many are not named
        there, if there are such.
    """
    found = list(problems)
    fields = [
        {name: shortened(text, _MAX_NAME_CHARS) for name, text in item.items()}
        for item in found[:MAX_FIELDS]
    ]
    told = [
        f"{item['field']}: {item['problem']}" + (f" ({item['fix']})" if "fix" in item else "")
        for item in fields
    ]
    details: dict[str, Any] = {"fields": fields}
    more = len(found) - len(fields)
    if more:
        told.append(f"and {more:,} more")
        details["more"] = more
    return "; ".join(told), details
