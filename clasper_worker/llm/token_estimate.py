"""How many tokens a text is, roughly, without a tokenizer.

One token for every four characters, and 0.4 for each further byte that UTF-8 needs: English comes
out right, Cyrillic at 0.65 a character, Chinese and Japanese at 1.05, an emoji at 1.45. Source of
the first: OpenAI's rule of thumb ("one token is about four characters of English"); the second
errs on the safe side of what byte pair encodings of the 200,000-token kind make of other scripts.
"""

from __future__ import annotations

import math

CHARS_PER_TOKEN = 4
_TOKENS_PER_FURTHER_BYTE = 0.4


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of ``text``; 0 for an empty one."""
    tokens = len(text) / CHARS_PER_TOKEN
    if not text.isascii():
        size = len(text.encode("utf-8", "surrogatepass"))
        tokens += (size - len(text)) * _TOKENS_PER_FURTHER_BYTE
    return math.ceil(tokens)
