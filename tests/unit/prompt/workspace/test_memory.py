from collections.abc import Callable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.prompt.workspace.memory import CHUNK_CHARS, memory_chunks, split_memory
from clasper_worker.prompt.workspace.snapshot import WorkspaceSnapshot

LINES = st.lists(
    st.one_of(
        st.sampled_from(["", "# One", "## Two", "### Three", "```", "- item", "#no heading"]),
        st.text(alphabet="abc d", max_size=40),
        st.text(alphabet="xyz ", min_size=900, max_size=2500),
    ),
    max_size=40,
)


def squeezed(text: str) -> str:
    return "".join(text.split())


@given(LINES)
def test_pieces_are_within_the_limit_in_order_and_nothing_but_headings_is_lost(
    lines: list[str],
) -> None:
    text = "\n".join(lines)
    pieces = list(split_memory("MEMORY.md", text))
    assert all(0 < len(piece.text) <= CHUNK_CHARS for piece in pieces)
    assert [piece.line for piece in pieces] == sorted(piece.line for piece in pieces)
    told = squeezed("".join(piece.text for piece in pieces))
    headings = {"# One", "## Two", "### Three"}
    if "```" not in lines:
        assert told == squeezed("".join(line for line in lines if line not in headings))


@given(LINES)
def test_a_piece_begins_where_its_line_says(lines: list[str]) -> None:
    source = "\n".join(lines).split("\n")
    for piece in split_memory("MEMORY.md", "\n".join(lines)):
        assert squeezed(piece.text)[:5] in squeezed("".join(source[piece.line - 1 :]))


def test_a_piece_names_the_headings_it_stands_under() -> None:
    text = "intro\n# People\n## Ada\nlikes tea\n## Bob\nlikes coffee\n# Places\nLisbon"
    pieces = list(split_memory("MEMORY.md", text))
    assert [(piece.line, piece.headings, piece.text) for piece in pieces] == [
        (1, (), "intro"),
        (4, ("People", "Ada"), "likes tea"),
        (6, ("People", "Bob"), "likes coffee"),
        (8, ("Places",), "Lisbon"),
    ]
    assert pieces[1].told == "People › Ada\nlikes tea"  # noqa: RUF001 - the sign between headings


def test_a_hash_inside_a_code_block_is_no_heading() -> None:
    (piece,) = split_memory("MEMORY.md", "```\n# comment\n```")
    assert piece.text == "```\n# comment\n```"


def test_a_long_section_is_cut_between_paragraphs() -> None:
    paragraph = "word " * 80
    pieces = list(split_memory("MEMORY.md", "\n\n".join([paragraph.strip()] * 5)))
    assert [piece.text.count("\n\n") for piece in pieces] == [1, 1, 0]


def test_memory_is_the_lasting_one_and_then_the_days_from_the_newest_on(
    snapshot: Callable[[Mapping[str, str | bytes]], WorkspaceSnapshot],
) -> None:
    found = snapshot(
        {"memory/2026-03-04.md": "old", "memory/2026-03-05.md": "new", "MEMORY.md": "lasting"}
    )
    assert [chunk.name for chunk in memory_chunks(found)] == [
        *("MEMORY.md:1", "memory/2026-03-05.md:1", "memory/2026-03-04.md:1")
    ]
