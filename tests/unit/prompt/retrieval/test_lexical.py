import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.prompt.retrieval.lexical import FIVE, THREE_TO_FIVE, LexicalIndex, terms

DOCUMENTS = [
    "Write to customers whose invoices are overdue",
    "Book flights and hotels",
    "会议记录和行动项目",
    "",
]


def best(query: str) -> int:
    return int(LexicalIndex(DOCUMENTS).scores(query).argmax())


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("the overdue invoice", 0),
        ("INVOICING a customer", 0),
        ("a flight, please", 1),
        ("行动", 2),
    ],
)
def test_the_document_that_shares_parts_of_words_is_best(query: str, document: int) -> None:
    assert best(query) == document


@pytest.mark.parametrize("query", ["", "?!", "zzzzzz", "x" * 100_000])
def test_a_query_that_shares_nothing_scores_nothing(query: str) -> None:
    assert LexicalIndex(DOCUMENTS).scores(query).tolist() == [0.0] * 4


@pytest.mark.parametrize("message", ["flights {0}", "{0} flights"])
def test_what_is_wanted_is_found_before_and_after_a_long_text(message: str) -> None:
    assert best(message.format("lorem ipsum " * 5_000)) == 1


@given(st.text())
def test_any_text_can_be_asked_for_and_gives_a_finite_score_for_each_document(text: str) -> None:
    scores = LexicalIndex(DOCUMENTS).scores(text).tolist()
    assert len(scores) == len(DOCUMENTS)
    assert all(0 <= score < 1e6 for score in scores)


@given(st.lists(st.sampled_from(["invoice", "overdue", "flights", "book", "会议"]), max_size=9))
def test_the_scores_are_those_of_the_library(words: list[str]) -> None:
    index = LexicalIndex(DOCUMENTS)
    query = " ".join(words)
    known = index._bm25.get_tokens_ids(list(dict.fromkeys(terms(query))))
    expected = index._bm25.get_scores_from_ids(known) if known else [0.0] * len(DOCUMENTS)
    assert index.scores(query).tolist() == pytest.approx(list(expected), rel=1e-5)


@given(st.lists(st.text(), min_size=1, max_size=8).filter(lambda d: any(terms(t) for t in d)))
def test_any_documents_can_be_indexed(documents: list[str]) -> None:
    assert len(LexicalIndex(documents).scores(" ".join(documents))) == len(documents)


def test_a_word_is_cut_into_all_parts_of_the_sizes_asked_for() -> None:
    assert terms("Bills") == ["^bill", "bills", "ills$"]
    assert terms("bill", (3, 5)) == ["^bi", "bil", "ill", "ll$", "^bill", "bill$"]


@pytest.mark.parametrize("sizes", [FIVE, THREE_TO_FIVE])
def test_a_word_shorter_than_a_part_is_a_term(sizes: tuple[int, ...]) -> None:
    assert terms("a", sizes) == ["^a$"]
    assert "^up$" in terms("up", sizes)


def test_smaller_parts_find_words_that_share_little() -> None:
    documents = ["All about tax", "Book a hotel"]
    for sizes, found in ((FIVE, False), (THREE_TO_FIVE, True)):
        scores = LexicalIndex(documents, sizes).scores("my taxes")
        assert bool(scores[0] > 0) == found


@given(st.text())
def test_terms_do_not_depend_on_case_or_width(text: str) -> None:
    assert terms(text.casefold()) == terms(text)
