"""What a user's id, a session key, a role and an idempotency key are, whatever surrounds them.

One definition for Python and for the scheduler's script, which is handed the table: were the two to
differ, one user's turns would lie in two lanes under two caps.
"""

from __future__ import annotations

import re
import unicodedata

BLANK: tuple[tuple[int, int], ...] = (
    (0x09, 0x0D),
    (0x1C, 0x20),
    (0x85, 0x85),
    (0xA0, 0xA0),
    (0xAD, 0xAD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x1680, 0x1680),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x2000, 0x200F),
    (0x2028, 0x202F),
    (0x205F, 0x206F),
    (0x2800, 0x2800),
    (0x3000, 0x3000),
    (0x3164, 0x3164),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE00FF),
    (0xE01F0, 0xE0FFF),
)
"""Code points that show nothing, as ranges in order: Unicode's white space, what it lets fonts
ignore (zero-width characters, marks of direction, tags), and blank letters. A variation selector is
none of them: it belongs to the character before it, as in many an emoji."""

_CLASS = "".join(f"{chr(first)}-{chr(last)}" for first, last in BLANK)
_LEADING = re.compile(f"[{_CLASS}]*")
_SELECTOR = "[\ufe00-\ufe0f\U000e0100-\U000e01ef]"
# A selector after a letter or digit shows nothing, but for the digits that are emoji.
_HIDDEN = re.compile(
    f"[\x00-\x1f\x7f-\x9f]|(?! )[{_CLASS}]|(?<=\\w){_SELECTOR}(?!\u20e3)|^{_SELECTOR}"
)


def clean_identifier(text: str) -> str:
    """The identifier without the blank characters before and after it."""
    start = _LEADING.match(text).end()  # type: ignore[union-attr]  # it matches nothing, too
    if start == len(text):
        return ""
    end = len(text) - _LEADING.match(text[::-1]).end()  # type: ignore[union-attr]
    return text[start:end]


def check_user_id(user_id: str) -> str:
    """Return a cleaned user id, if no other text that looks the same is taken for another user.

    It is refused rather than mended: the backend compares it character by character.

    Raises:
        ValueError: it holds a character that does not show, or is not in Unicode's form NFC.
    """
    found = _HIDDEN.search(user_id)
    if found is not None:
        shown = f"U+{ord(found.group()):04X}"
        kind = "control" if unicodedata.category(found.group()) == "Cc" else "invisible"
        raise ValueError(f"must not contain {kind} characters ({shown})")
    if not unicodedata.is_normalized("NFC", user_id):
        raise ValueError("must be in Unicode's composed form, NFC")
    return user_id
