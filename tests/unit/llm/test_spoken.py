"""Text that comes in pieces is shown as the whole text is, however it is cut."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clasper_worker.llm.spoken import SpokenText, without_controls, without_thoughts
from clasper_worker.text.whole_text import whole
from tests.examples import examples
from tests.growth import is_linear

PARTS = [
    "<think>", "</think>", "<thinking>", "</ thinking >", "<think kind=x>", "<seed:think>", "</",
    "</seed:think>", "[THINK]", "[/THINK]", "◁think▷", "◁/think▷", "<think [/THINK] ", "<THOUGHT ",
    "<th", "ink", "<", ">", "[", "]", "◁", "▷", "/", "`", "'", '"', " ", "\n", "\u00a0", "\t",
    "\x00", "\x1f", "\x7f", "\ud83d", "\ude00", "😀", "é", "a", "Hello", "x" * 120,
    "<think " + "y" * 99,
]  # fmt: skip
TEXTS = st.one_of(st.lists(st.sampled_from(PARTS), max_size=14).map("".join), st.text(max_size=30))


def final(text: str) -> str:
    return whole(without_thoughts(without_controls(text))).strip()


def shown(pieces: Sequence[str]) -> str:
    spoken, given_out = SpokenText(), ""
    for piece in [*pieces, None]:
        new = spoken.end() if piece is None else spoken.feed(piece)
        assert not (spoken.restarted and not given_out), "nothing was given that could be void"
        given_out = new if spoken.restarted else given_out + new
        assert given_out == given_out.strip()
    return given_out


def cut(text: str, places: Sequence[int]) -> list[str]:
    ends = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(ends)]


@settings(max_examples=examples(400), deadline=None)
@given(TEXTS, st.lists(st.integers(0, 2000), max_size=6))
def test_pieces_make_what_the_whole_text_makes(text: str, places: list[int]) -> None:
    assert shown(cut(text, places)) == final(text)


@settings(max_examples=examples(200), deadline=None)
@given(TEXTS)
def test_single_characters_make_what_the_whole_text_makes(text: str) -> None:
    assert shown(list(text)) == final(text)


@settings(max_examples=examples(300), deadline=None)
@given(st.text(st.characters(exclude_characters="<[◁", exclude_categories=["Cs", "Cc", "Z"])))
def test_text_without_a_tag_is_shown_at_once(text: str) -> None:
    spoken = SpokenText()
    assert spoken.feed("a" + text).rstrip() == ("a" + text).rstrip()


@pytest.mark.parametrize(
    ("pieces", "held"),
    [
        (["Hi", " ", "\n", "you"], ["Hi", "", "", " \nyou"]),
        (["  <thi", "nk>so", "</think> ", " A"], ["", "", "", "A"]),
        (["a <", "b"], ["a", " <b"]),
        (["see [", "1]"], ["see", " [1]"]),
        (["\ud83d", "\ude00"], ["", "😀"]),
        (["\ud83d", "x"], ["", "\N{REPLACEMENT CHARACTER}x"]),
    ],
)
def test_no_more_is_held_back_than_must_be(pieces: list[str], held: list[str]) -> None:
    spoken = SpokenText()
    assert [spoken.feed(piece) for piece in pieces] == held


def test_what_may_become_a_tag_is_held_back_for_its_length_only() -> None:
    spoken = SpokenText()
    assert spoken.feed("a<think " + "y" * 99) == "a"
    assert spoken.feed("y") == "<think " + "y" * 100


def test_text_that_turns_out_to_be_thoughts_is_void() -> None:
    spoken = SpokenText()
    assert (spoken.feed("Let me see."), spoken.restarted) == ("Let me see.", False)
    assert (spoken.feed(" </think>\n\nYes"), spoken.restarted) == ("Yes", True)
    assert (spoken.feed(" </think>"), spoken.restarted) == (" </think>", False)


@pytest.mark.parametrize(
    "part", ["<", "<think ", "[", "<think>a</think>", "`</think>`", " ", "\ud83d", "a<b ", "x"]
)
@pytest.mark.parametrize("size", [1, 7, 10**9])
def test_the_time_grows_as_the_text_does(part: str, size: int) -> None:
    def run(text: str) -> None:
        spoken = SpokenText()
        for start in range(0, len(text), size):
            spoken.feed(text[start : start + size])
        spoken.end()

    assert is_linear(run, lambda times: part * times)
