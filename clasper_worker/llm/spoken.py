"""What of a model's text is for people: without its thoughts, and without characters of no use.

Some models write their thoughts into the text of the reply, before the answer, between tags; some
servers leave the first of the two out. Pure, and linear in the text.
"""

from __future__ import annotations

import re
from typing import Any

from clasper_worker.text.whole_text import whole

_NAME = r"(?:seed:|ant)?(?:think(?:ing)?|thoughts?|reasoning)"
_OPENING = re.compile(rf"<{_NAME}(?: [^<>]{{0,99}})?>|\[THINK\]|◁think▷", re.IGNORECASE)
_CLOSING = re.compile(rf"<\s?/\s?{_NAME}\s?>|\[/THINK\]|◁/think▷", re.IGNORECASE)
_QUOTES = "`'\""  # before a tag that is spoken of, and closes nothing

# C0 and DEL, but tab, line feed and carriage return: no text needs them, and some databases refuse
# them. And halves of surrogate pairs, which JSON can carry and UTF-8 cannot.
_CONTROLS = dict.fromkeys((*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F))
_UNWANTED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_ESCAPES = ("\\u00", "\\ud", "\\uD")


def without_controls(text: str) -> str:
    """The text without control characters; half of a surrogate pair becomes U+FFFD."""
    if text.isascii():  # by a table, which takes a tenth of the time
        return text.translate(_CONTROLS)
    if _UNWANTED.search(text) is None:
        return text
    return whole(text.translate(_CONTROLS))


def json_without_controls(value: Any) -> Any:
    """A decoded JSON value with `without_controls` applied to every text in it, keys included."""
    if isinstance(value, str):
        return without_controls(value)
    if isinstance(value, dict):
        return {without_controls(key): json_without_controls(item) for key, item in value.items()}
    if isinstance(value, list):
        return [json_without_controls(item) for item in value]
    return value


def may_escape_controls(json_text: str) -> bool:
    """Whether a JSON text may hold, as escapes, what `without_controls` takes out."""
    return "\\u" in json_text and any(escape in json_text for escape in _ESCAPES)


def without_thoughts(text: str) -> str:
    """The text without the thoughts that it begins with; empty where there is nothing else.

    A tag that is never closed has thoughts behind it to the end; one that was never opened has
    them before it, unless it is quoted.
    """
    if "<" not in text and "[" not in text and "◁" not in text:
        return text
    start = 0
    while opened := _OPENING.match(text, _after_blanks(text, start)):
        closed = _CLOSING.search(text, opened.end())
        if closed is None:
            return ""
        start = closed.end()
    for closed in _CLOSING.finditer(text, start):
        before = text[closed.start() - 1 : closed.start()]
        if before and before in _QUOTES:
            continue
        if not _is_opened(text[start : closed.start()]):
            start = closed.end()
        break
    return text[start:].lstrip() if start else text


def _after_blanks(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start


def _is_opened(text: str) -> bool:
    """Whether there is an opening tag in it: then its closing one is the answer's own."""
    return any(_OPENING.match(text, place.start()) for place in _BRACKET.finditer(text))


_BRACKET = re.compile(r"[<\[◁]")
