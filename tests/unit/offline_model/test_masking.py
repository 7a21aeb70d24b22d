import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.offline_model.masking import mask


@pytest.mark.parametrize(
    ("text", "strings"),
    [
        ('say "one" and "two"', ("one", "two")),
        ("say 'Bob's launch' now", ("Bob's launch",)),
        ("say “one” and «two» and `three`", ("one", "two", "three")),
        ("don't and can't", ()),
        ("it\u2019s Ada\u2019s turn", ()),
        ('5" and', ()),
    ],
)
def test_quoted_strings_are_set_aside_and_apostrophes_are_not_quotes(
    text: str, strings: tuple[str, ...]
) -> None:
    assert mask(text).strings == strings


def test_a_quoted_string_alone_is_a_value_without_its_marks() -> None:
    masked = mask("called 'Launch day' now")
    assert masked.value(masked.text[7:8]) == "Launch day"
    assert masked.plain(masked.text) == 'called "Launch day" now'


@given(st.text(alphabet=st.sampled_from("ab\"'`“”\u2018\u2019«» \n\ue000\uf8ff"), max_size=60))
def test_masking_any_text_keeps_what_is_outside_quotes(text: str) -> None:
    masked = mask(text)
    assert len(masked.values(masked.text)) == len(masked.strings)
    masked.plain(masked.text)
