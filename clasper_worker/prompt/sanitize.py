"""Text from outside (task titles, notifications, tool results) made safe to put into a prompt.

Two steps. `strip_unsafe` takes out the characters that people cannot see but models read: control
characters, bidirectional overrides, invisible operators, tag characters. `fence_data` then puts
the text between markers that the system prompt's safety rule declares to hold data and never
instructions; the text cannot hold such a marker itself. `shorten` fits a text into a limit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

DATA_TAG = "data"
TURN_CONTEXT_TAG = "turn_context"

# Removed outright. Kept on purpose: tab and line feed; U+200C and U+200D (joiners), which Persian,
# Indic scripts and emoji are spelled with; U+FE00-FE0F (variation selectors), for emoji.
_UNSAFE = re.compile(
    "["
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f"  # C0 and C1 controls, but \t \n \r NEL
    "\u00ad\u034f\u180e"  # soft hyphen, grapheme joiner, Mongolian vowel separator
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, overrides, isolates
    "\u200b\u2060-\u2065\u206a-\u206f\ufeff"  # zero width spaces, invisible operators
    "\ufff9-\ufffb"  # interlinear annotation
    "\ud800-\udfff"  # lone surrogates: not encodable as UTF-8
    "\U000e0000-\U000e0fff"  # tags and variation selectors that carry hidden text
    "]"
)
_LINE_ENDS = re.compile("\r\n?|\x85|\u2028|\u2029")
_ASCII_CONTROLS = dict.fromkeys((*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F))


def _look_alike(tag: str) -> str:
    # Letters may be held apart by spaces or joiners and still read as the tag.
    return _APART.join(map(re.escape, tag))


# Possessive: what was skipped once is never tried again in another way, so that a bracket costs no
# more than the text up to the first character that is no part of a marker.
_APART = r"[\s\u200c\u200d]*+"

# An opening or closing marker, or anything that a reader might take for one.
_MARKER = re.compile(
    rf"[<\uff1c\ufe64\u2039\u3008\u2329\u27e8](?={_APART}[/\uff0f\u2044\u2215]?+{_APART}"
    rf"(?:{_look_alike(DATA_TAG)}|{_look_alike(TURN_CONTEXT_TAG)})(?![\w-]))",
    re.IGNORECASE,
)
_FENCED = re.compile(rf'<{DATA_TAG} source="[^"]*">\n(.*)\n</{DATA_TAG}>', re.DOTALL)
_NOT_LABEL = re.compile(r"[^A-Za-z0-9 _.,:/#-]+")
_LABEL_CHARS = 80
_ITEM_CHARS = 4  # what JSON puts around a field, at least


def strip_unsafe(text: str) -> str:
    """Take out control, bidirectional and invisible characters; line ends become line feeds.

    What a person can read stays as it is, in every script. Stripping twice changes nothing more.
    """
    if text.isascii():  # by a table, which takes a tenth of the time
        return text.translate(_ASCII_CONTROLS).replace("\r\n", "\n").replace("\r", "\n")
    return _LINE_ENDS.sub("\n", _UNSAFE.sub("", text))


def fence_data(label: str, text: str) -> str:
    """Put ``text`` from outside between markers that declare it to be data.

    Whatever in the text looks like a marker loses its opening bracket to ``&lt;``; all else stays
    as it is, so that code and addresses in it remain usable.

    Args:
        label: what the text is, for the model: "task title". Letters, digits and ``_.,:/#-``;
            anything else becomes a space.
        text: the text, as it came.

    Returns:
        Several lines: an opening marker, the stripped text, a closing marker.
    """
    name = _NOT_LABEL.sub(" ", label).strip()[:_LABEL_CHARS]
    body = _MARKER.sub("&lt;", strip_unsafe(text))
    return f'<{DATA_TAG} source="{name}">\n{body}\n</{DATA_TAG}>'


def unfence_data(text: str) -> str:
    """The text inside a fence that `fence_data` made; any other text as it is."""
    match = _FENCED.fullmatch(text)
    return text if match is None else match.group(1)


def strip_unsafe_json(value: Any) -> Any:
    """A decoded JSON value with `strip_unsafe` applied to every text in it, keys included.

    To be done before the value becomes JSON text, in which such characters may hide as escapes.
    """
    if isinstance(value, str):
        return strip_unsafe(value)
    if isinstance(value, Mapping):
        return {strip_unsafe(str(key)): strip_unsafe_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strip_unsafe_json(item) for item in value]
    return value


def json_for_model(value: Any, limit: int, marker: str) -> str:
    """A decoded JSON value from outside as JSON text, without what `strip_unsafe` takes out.

    Of a value that is too large no more is read than is told, whatever its size: it must not hold
    the event loop.

    Args:
        value: the value; what is not of JSON's types is told as its ``str``.
        limit: characters that the text may have.
        marker: see `shorten`; it ends a text that was cut.
    """
    budget = _Budget(limit)
    text = json.dumps(strip_unsafe_json(budget.taken(value)), ensure_ascii=False, default=str)
    if budget.left < 0:
        text = shorten(text, limit - len(marker), "") + marker
    return shorten(text, limit, marker)


class _Budget:
    """Takes the beginning of a value: as many characters of texts and items as it is made with."""

    def __init__(self, characters: int) -> None:
        self.left = characters

    def taken(self, value: Any) -> Any:
        """The value, or its beginning, from where on ``left`` is less than 0."""
        if isinstance(value, str):
            text = value[: max(0, self.left)]
            self.left -= len(value)
            return text
        if isinstance(value, Mapping):
            fields: dict[str, Any] = {}
            for key, item in value.items():
                if self.left < 0:
                    break
                self.left -= _ITEM_CHARS
                name = self.taken(str(key))
                fields[name] = self.taken(item)
            return fields
        if isinstance(value, list | tuple):
            items: list[Any] = []
            for item in value:
                if self.left < 0:
                    break
                self.left -= 1
                items.append(self.taken(item))
            return items
        return value


def shorten(text: str, limit: int, marker: str) -> str:
    """Cut ``text`` to at most ``limit`` characters, the marker that says so included.

    Args:
        text: the text to fit.
        limit: characters that the result may have.
        marker: appended to a text that was cut; itself cut where even it does not fit.
    """
    if len(text) <= limit:
        return text
    kept = text[: max(0, limit - len(marker))].rstrip()
    return (kept + marker)[:limit]
