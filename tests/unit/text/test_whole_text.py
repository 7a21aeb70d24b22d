"""Text without halves of surrogate pairs."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.text.whole_text import is_damaged, json_of, undamaged, whole, whole_json

ANY_TEXT = st.text(st.characters(codec=None) | st.sampled_from(["\ud83d", "\ude00"]), max_size=40)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(ANY_TEXT)
def test_any_text_can_be_encoded_afterwards_and_well_formed_text_stays(text: str) -> None:
    made = whole(text)
    made.encode()
    assert whole(made) == made
    if not any("\ud800" <= char <= "\udfff" for char in text):
        assert made == text


@given(ANY_JSON)
def test_any_json_is_whole_however_it_was_written(value: Any) -> None:
    for written in (
        json.dumps(value),
        json.dumps(value).encode(),
        json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"),
        json.dumps(value).encode("utf-16"),
        b"\xef\xbb\xbf" + json.dumps(value).encode(),
    ):
        # JSON itself joins two escapes that make a pair.
        expected = whole_json(json.loads(json.dumps(value)))
        assert json_of(written) == expected
        json.dumps(expected, ensure_ascii=False).encode()


def test_halves_become_the_replacement_character_and_pairs_a_character() -> None:
    assert whole("a\ud83d b \ud83d\ude00 \ude00") == "a\ufffd b \U0001f600 \ufffd"
    assert whole_json({"\ud83d": ["\ude00", ("x\ud83d", None, 1)]}) == {
        "\ufffd": ["\ufffd", ["x\ufffd", None, 1]]
    }


def test_deep_nesting_is_walked_without_recursion() -> None:
    nested: Any = "\ud83d"
    for _ in range(50_000):
        nested = [nested]
    found = whole_json(nested)
    while isinstance(found, list):
        (found,) = found
    assert found == "\ufffd"


def test_what_names_something_is_not_repaired() -> None:
    assert undamaged("u\u00e9\U0001f600") == "u\u00e9\U0001f600"
    for name in ("u\ud83d", "u\ufffd"):
        assert is_damaged(name)
        with pytest.raises(ValueError, match="half of a surrogate pair"):
            undamaged(name)
