import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.llm.token_estimate import estimate_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("a", 1), ("four", 1), ("a" * 400, 100), ("привет" * 10, 39), ("东" * 100, 105)],
)
def test_tokens_follow_the_length_and_the_script(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


@given(st.text(), st.text())
def test_more_text_is_never_fewer_tokens(text: str, more: str) -> None:
    assert estimate_tokens(text) <= estimate_tokens(text + more)
