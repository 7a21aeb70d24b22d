"""Text that can be sent on: without halves of surrogate pairs, which JSON has and UTF-8 has not.

Half an emoji (U+D83D alone, as a program leaves it that cuts text between UTF-16 units) is text to
Python's JSON parser and an error to whatever encodes it: Redis, HTTP, a log. So it becomes U+FFFD,
the replacement character, wherever text comes in. What names something (a user, a session, a task,
a key) is not repaired: with U+FFFD in it, it would name something else, so a request with such a
name is refused (`is_damaged`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_SURROGATE = re.compile("[\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
# How a surrogate stands in JSON: as an escape, or encoded as if it were a character (CESU-8).
_MAY_HOLD = (b"\\ud", b"\\uD", b"\xed")


def whole(text: str) -> str:
    """The text with each half of a surrogate pair as U+FFFD; two that make a pair are joined."""
    if text.isascii() or _SURROGATE.search(text) is None:
        return text
    return _SURROGATE.sub(REPLACEMENT, _PAIR.sub(_joined, text))


def _joined(pair: re.Match[str]) -> str:
    return pair[0].encode("utf-16", "surrogatepass").decode("utf-16")


def whole_json(value: Any) -> Any:
    """A decoded JSON value with `whole` applied to every text in it, keys included.

    What is no JSON type stays as it is. Deep nesting does not end in a RecursionError.
    """
    result: list[Any] = [None]
    left: list[tuple[Any, Any, Any]] = [(value, result, 0)]
    while left:
        item, into, place = left.pop()
        made: Any
        if isinstance(item, str):
            made = whole(item)
        elif isinstance(item, Mapping):
            made = dict.fromkeys(whole(key) if isinstance(key, str) else key for key in item)
            left.extend(
                (inner, made, whole(key) if isinstance(key, str) else key)
                for key, inner in item.items()
            )
        elif isinstance(item, list | tuple):
            made = [None] * len(item)
            left.extend((inner, made, index) for index, inner in enumerate(item))
        else:
            made = item
        into[place] = made
    return result[0]


def json_of(body: bytes | str) -> Any:
    """Decode JSON, in any of Unicode's encodings and with or without a byte order mark, as `whole`.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply for the parser.
    """
    raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    value = json.loads(raw)
    # UTF-16 and UTF-32 have NUL bytes, which JSON in UTF-8 cannot have.
    suspect = b"\0" in raw or any(mark in raw for mark in _MAY_HOLD)
    return whole_json(value) if suspect else value


def is_damaged(name: str) -> bool:
    """Whether what names something has lost a character on its way here."""
    return REPLACEMENT in name or _SURROGATE.search(name) is not None


def undamaged(name: str) -> str:
    """A name as it is.

    Raises:
        ValueError: it is damaged.
    """
    if is_damaged(name):
        raise ValueError(
            "holds half of a surrogate pair, or U+FFFD in place of a character that was lost"
        )
    return name
