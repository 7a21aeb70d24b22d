"""Ranking by words: BM25 over the parts of words, for text in any language.

The terms are the five-character parts of each word, its ends marked (``invoice`` → ``^invo``,
``invoi`` … ``oice$``), so that ``invoices``, ``invoicing`` and compounds still match without a
stemmer for each language; a short word is one term. Scripts without spaces are taken in pairs of
characters. BM25 itself weighs down the parts that are everywhere. On the labelled set in
``benchmarks/`` this found more than words, stemmed words, or parts of three or four characters.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PART_CHARS = 5
_MAX_WORD_CHARS = 64  # of a longer one (a key, an address) the beginning is enough
_MAX_QUERY_TERMS = 2_000
_WORD = re.compile(r"[^\W_]+")
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
)


class LexicalIndex:
    """BM25 over a fixed list of documents. May be asked from any thread.

    Args:
        documents: their texts; at least one of them with a word in it.
    """

    def __init__(self, documents: Sequence[str]) -> None:
        # Imported here: it brings numpy (about 22 MB), which a worker without smart context
        # does not need.
        import bm25s  # noqa: PLC0415

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG
        self._bm25: Any = bm25s.BM25()
        self._bm25.index([terms(text) for text in documents], show_progress=False)

    def scores(self, query: str) -> NDArray[np.float32]:
        """How well each document fits, in their order; 0 where no term is shared."""
        import numpy as np  # noqa: PLC0415 - as above

        asked = list(dict.fromkeys(terms(query)))[:_MAX_QUERY_TERMS]
        known = self._bm25.get_tokens_ids(asked)
        if not known:
            return np.zeros(self._bm25.scores["num_docs"], np.float32)
        found: NDArray[np.float32] = self._bm25.get_scores_from_ids(known)
        return found


def terms(text: str) -> list[str]:
    """The terms of a text, in order, repeated as they are in it."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return [term for word in words for term in _terms_of_word(word[:_MAX_WORD_CHARS])]


@lru_cache(maxsize=16_384)
def _terms_of_word(word: str) -> tuple[str, ...]:
    if _UNSPACED.search(word):
        return tuple(word[i : i + 2] for i in range(max(1, len(word) - 1)))
    marked = f"^{word}$"
    count = max(1, len(marked) - _PART_CHARS + 1)
    return tuple(marked[i : i + _PART_CHARS] for i in range(count))
