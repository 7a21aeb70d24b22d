"""Quoted strings of a text set aside, so that what stands inside quotes is never read as a request.

Each quoted string is replaced by one private-use character, which patterns match as ``QUOTE``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FIRST = 0xE000
_LAST = 0xF8FF
QUOTE = f"[{chr(_FIRST)}-{chr(_LAST)}]"

_PRIVATE_USE = re.compile(QUOTE)
_SINGLE = "'\u2018"
_CLOSE_SINGLE = "'\u2019"
_QUOTED = re.compile(
    r"\"([^\"\n]{1,2000})\"|\u201c([^\u201d\n]{1,2000})\u201d|\u00ab([^\u00bb\n]{1,2000})\u00bb"
    r"|`([^`\n]{1,2000})`"
    # An apostrophe inside a word does not close a single quotation mark.
    rf"|(?<!\w)[{_SINGLE}]((?:[^'\u2018\u2019\n]|(?<=\w)['\u2019](?=\w)){{1,2000}})"
    rf"[{_CLOSE_SINGLE}](?!\w)"
)


@dataclass(frozen=True, slots=True)
class Masked:
    """A text whose quoted strings are set aside; ``text`` has one character for each."""

    text: str
    strings: tuple[str, ...]

    def plain(self, part: str) -> str:
        """A part of the text with quoted strings back in place, in their quotation marks."""
        return _PRIVATE_USE.sub(lambda match: f'"{self._string(match.group())}"', part)

    def value(self, part: str) -> str:
        """A part of the text as a value: one quoted string alone loses its quotation marks."""
        part = part.strip()
        if len(part) == 1 and _PRIVATE_USE.match(part):
            return self._string(part).strip()
        return self.plain(part)

    def values(self, part: str) -> tuple[str, ...]:
        """The quoted strings of a part of the text, without their quotation marks."""
        return tuple(self._string(match.group()) for match in _PRIVATE_USE.finditer(part))

    def _string(self, character: str) -> str:
        return self.strings[ord(character) - _FIRST]


def mask(text: str) -> Masked:
    """Set a text's quoted strings aside; typographic apostrophes become plain ones."""
    text = _PRIVATE_USE.sub(" ", text)
    strings: list[str] = []

    def set_aside(match: re.Match[str]) -> str:
        if len(strings) > _LAST - _FIRST:
            return match.group()
        strings.append(next(group for group in match.groups() if group is not None))
        return chr(_FIRST + len(strings) - 1)

    masked = _QUOTED.sub(set_aside, text).replace("\u2019", "'")
    return Masked(masked, tuple(strings))
