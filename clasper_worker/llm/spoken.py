"""What of a model's text is for people: without its thoughts, and without characters of no use.

Some models write their thoughts into the text of the reply, before the answer, between tags; some
servers leave the first of the two out. Pure, and linear in the text, be it whole or in pieces.
"""

from __future__ import annotations

import re
from typing import Any, Literal

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
    if text.isascii():  # by a table, which is faster than to search
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


def _begun(word: str) -> str:
    """A pattern of every beginning of a word, nothing and the whole of it included."""
    pattern = ""
    for letter in reversed(word):
        pattern = f"(?:{re.escape(letter)}{pattern})?"
    return pattern


_WORDS = "|".join(
    _begun(before + word)
    for before in ("", "seed:", "ant")
    for word in ("thinking", "thoughts", "reasoning")
)
# What may become a tag: of a hundred characters and a few at most.
_TAG_BEGUN = re.compile(
    rf"<(?:{_WORDS}|{_NAME}(?: [^<>]{{0,99}})?)"
    rf"|<\s?(?:/\s?(?:{_WORDS}|{_NAME}\s?))?"
    rf"|{_begun('[/THINK]')}|{_begun('[THINK]')}|{_begun('◁/think▷')}|{_begun('◁think▷')}",
    re.IGNORECASE,
)
_CLOSING_CHARS = 24  # the longest of them has fewer


class SpokenText:
    """The visible text of a reply that comes in pieces.

    The pieces that `feed` and `end` give from the last restart on are, joined,
    ``without_thoughts(without_controls(text)).strip()`` of the whole text, however it is cut. Held
    back are the thoughts that it begins with, blanks until something follows them, and the few
    characters that may become a tag or the second half of a surrogate pair.

    Attributes:
        restarted: whether all that was given before the last piece is void: a tag that closes
            thoughts and was never opened shows that it was thoughts.
    """

    def __init__(self) -> None:
        self.restarted = False
        self._state: Literal["before", "thoughts", "answer", "settled"] = "before"
        self._half = ""  # the first one of a surrogate pair
        self._left = ""  # what is not looked at yet
        self._last = ""  # the character before that, within the answer
        self._opened: int | None = None  # where the first opening tag in the answer ends, in _left
        self._blanks: list[str] = []
        self._has_spoken = False

    def feed(self, piece: str) -> str:
        """What can be shown now that this piece has come; see `restarted`."""
        self.restarted = False
        if piece.isascii() and not self._half:
            return self._visible(piece.translate(_CONTROLS), is_last=False)
        piece = self._half + piece.translate(_CONTROLS)
        self._half = piece[-1:] if "\ud800" <= piece[-1:] <= "\udbff" else ""
        return self._visible(whole(piece.removesuffix(self._half)), is_last=False)

    def end(self) -> str:
        """What is left to be shown of the text, which is whole now; see `restarted`."""
        self.restarted = False
        half, self._half = whole(self._half), ""
        return self._visible(half, is_last=True)

    def _visible(self, text: str, *, is_last: bool) -> str:
        if self._state == "settled":
            return self._trimmed(text)
        if self._state == "answer" and not self._left and _BRACKET.search(text) is None:
            self._last = text[-1:] or self._last
            return self._trimmed(text)
        self._left += text
        if self._state != "answer":
            self._skip_thoughts(is_last=is_last)
        return self._trimmed(self._answer(is_last=is_last)) if self._state == "answer" else ""

    def _skip_thoughts(self, *, is_last: bool) -> None:
        """Drop thoughts and blanks that the text begins with, as far as it has come."""
        text, start = self._left, 0
        while True:
            if self._state == "thoughts":
                closed = _CLOSING.search(text, start)
                if closed is None:
                    start = max(start, len(text) - _CLOSING_CHARS)
                    break
                start = closed.end()
            self._state = "before"
            start = _after_blanks(text, start)
            opened = _OPENING.match(text, start)
            if opened is None:
                if start < len(text) and (is_last or _TAG_BEGUN.fullmatch(text, start) is None):
                    self._state = "answer"
                break
            self._state = "thoughts"
            start = opened.end()
        self._left = text[start:]

    def _answer(self, *, is_last: bool) -> str:
        """What of the rest belongs to the answer for all that is known, tags looked at."""
        text, looked_at = self._left, len(self._left)
        for bracket in _BRACKET.finditer(text):
            place = bracket.start()
            if closed := _CLOSING.match(text, place):
                before = text[place - 1] if place else self._last
                if before and before in _QUOTES:
                    continue
                self._state, self._left = "settled", ""
                if self._opened is not None and self._opened <= place:
                    return text
                self.restarted, self._has_spoken = self._has_spoken, False
                self._blanks.clear()
                return text[closed.end() :]
            if opened := _OPENING.match(text, place):
                ends = opened.end()
                self._opened = ends if self._opened is None else min(ends, self._opened)
            elif not is_last and _TAG_BEGUN.fullmatch(text, place):
                looked_at = place
                break
        self._left = text[looked_at:]
        self._last = text[looked_at - 1 : looked_at] or self._last
        if self._opened is not None:
            self._opened -= looked_at
        return text[:looked_at]

    def _trimmed(self, text: str) -> str:
        """The text with the blanks held back so far before it, and without those at its end."""
        spoken = text.rstrip()
        if not spoken:
            if self._has_spoken and text:
                self._blanks.append(text)
            return ""
        after = text[len(spoken) :]
        if not self._has_spoken:
            spoken, self._has_spoken = spoken.lstrip(), True
        elif self._blanks:
            spoken = "".join((*self._blanks, spoken))
            self._blanks.clear()
        if after:
            self._blanks.append(after)
        return spoken
