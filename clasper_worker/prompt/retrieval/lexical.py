"""Ranking by words: BM25 over the parts of words, for text in any language.

The terms are the parts of each word, its ends marked (five characters: ``invoice`` → ``^invo``,
``invoi`` … ``oice$``), so that ``invoices``, ``invoicing`` and compounds still match without a
stemmer for each language; a word shorter than a part is one term. Scripts without spaces are taken
in pairs of characters. BM25 itself weighs down the parts that are everywhere.

On the labelled sets in ``benchmarks/``, parts of three, four and five characters together find
more than those of five alone, which find more than words or stemmed words; leaving out stop words
finds less. All three cost three times the index, which few short texts can afford.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FIVE: tuple[int, ...] = (5,)
"""Parts of five characters: for a lot of text."""

THREE_TO_FIVE: tuple[int, ...] = (3, 4, 5)
"""Parts of three, four and five characters: find more, and cost three times as much."""

_MAX_WORD_CHARS = 64  # of a longer one (a key, an address) the beginning is enough
_PIECE_CHARS = 128  # that are brought into a normal form at once
_QUERY_END_CHARS = 2_000  # of a long message its two ends: what is wanted stands there
_WORD = re.compile(r"[^\W_]+")
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
)


class LexicalIndex:
    """BM25 over a fixed list of documents. May be asked from any thread.

    Args:
        documents: their texts; at least one of them with a word in it.
        sizes: characters of the parts that words are cut into: `FIVE` or `THREE_TO_FIVE`.
    """

    def __init__(self, documents: Sequence[str], sizes: tuple[int, ...] = FIVE) -> None:
        # Imported here: it brings numpy (about 22 MB), which a worker without smart context
        # does not need.
        import bm25s  # noqa: PLC0415

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG
        self._sizes = sizes
        self._bm25: Any = bm25s.BM25()
        self._bm25.index(_numbered(documents, sizes), show_progress=False)

    def scores(self, query: str) -> NDArray[np.float32]:
        """How well each document fits, in their order; 0 where no term is shared."""
        import numpy as np  # noqa: PLC0415 - as above

        asked = dict.fromkeys(terms(_ends(query), self._sizes))
        known = self._bm25.get_tokens_ids(list(asked))
        return _sums(self._bm25.scores, np.asarray(known, np.int64))


def terms(text: str, sizes: tuple[int, ...] = FIVE) -> list[str]:
    """The terms of a text, in order, repeated as they are in it."""
    return [term for word in _words(text) for term in _parts(word, sizes)]


def _numbered(documents: Sequence[str], sizes: tuple[int, ...]) -> tuple[list[list[int]], Any]:
    """The terms of each document by number, and the number of each: what bm25s makes of terms.

    Done here, each word is cut and looked up once for all documents, and not each time it is said.
    """
    vocabulary: dict[str, int] = {}
    of_word: dict[str, list[int]] = {}
    numbered = []
    for text in documents:
        numbers: list[int] = []
        for word in _words(text):
            known = of_word.get(word)
            if known is None:
                parts = _parts(word, sizes)
                known = [vocabulary.setdefault(part, len(vocabulary)) for part in parts]
                of_word[word] = known
            numbers += known
        numbered.append(numbers)
    return numbered, vocabulary


def _sums(matrix: Mapping[str, Any], known: NDArray[np.int64]) -> NDArray[np.float32]:
    """Each document's sum of the scores of some terms, from bm25s's matrix (columns are terms).

    What ``BM25.get_scores_from_ids`` does term by term, done for all at once: a message of 300
    characters has a thousand terms.
    """
    import numpy as np  # noqa: PLC0415 - as above

    starts = matrix["indptr"][known]
    sizes = matrix["indptr"][known + 1] - starts
    before = np.cumsum(sizes) - sizes
    places = np.repeat(starts - before, sizes) + np.arange(sizes.sum())
    sums = np.bincount(
        matrix["indices"][places], matrix["data"][places], minlength=matrix["num_docs"]
    )
    return sums.astype(np.float32)


def _ends(query: str) -> str:
    if len(query) <= 2 * _QUERY_END_CHARS:
        return query
    return f"{query[:_QUERY_END_CHARS]} {query[-_QUERY_END_CHARS:]}"


def _words(text: str) -> list[str]:
    return [word[:_MAX_WORD_CHARS] for word in _WORD.findall(_normalised(text).casefold())]


def _normalised(text: str) -> str:
    """The text in the form NFKC, made in short pieces.

    What sorts the combining marks behind a letter takes time by the square of their number.
    """
    if text.isascii():
        return text
    pieces = (
        word[start : start + _PIECE_CHARS]
        for word in text.split()
        for start in range(0, len(word), _PIECE_CHARS)
    )
    return " ".join(unicodedata.normalize("NFKC", piece) for piece in pieces)


@lru_cache(maxsize=16_384)
def _parts(word: str, sizes: tuple[int, ...]) -> tuple[str, ...]:
    if _UNSPACED.search(word):
        return tuple(word[i : i + 2] for i in range(max(1, len(word) - 1)))
    marked = f"^{word}$"
    parts = tuple(marked[i : i + n] for n in sizes for i in range(len(marked) - n + 1))
    return parts or (marked,)
