"""What belongs to an identifier, and what only surrounds it or hides in it."""

import itertools
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.engine.queue.identifiers import BLANK, check_user_id, clean_identifier
from clasper_worker.errors import InvalidRequestError
from clasper_worker.turn.request import parse_send_request

BLANKS = [chr(point) for first, last in BLANK for point in range(first, last + 1)]
ANY_TEXT = st.text(st.sampled_from(BLANKS[:200]) | st.characters(exclude_categories=["Cs"]))


def test_all_of_unicodes_white_space_is_blank_and_all_formats_that_show_nothing() -> None:
    blank = set(BLANKS)
    for point in range(sys.maxunicode + 1):
        char = chr(point)
        if char.isspace():
            assert char in blank, hex(point)
        # Signs that stand under or around what follows are of that category, and seen.
        if unicodedata.category(char) == "Cf" and "SIGN" not in unicodedata.name(char, ""):
            assert char in blank or _is_seen(char), hex(point)


def _is_seen(char: str) -> bool:
    name = unicodedata.name(char, "")
    return any(word in name for word in ("ARABIC", "SYRIAC", "KAITHI"))


def test_the_ranges_are_in_order_and_apart() -> None:
    points = [point for bounds in BLANK for point in bounds]
    assert points == sorted(points)
    assert all(one[1] + 1 < two[0] for one, two in itertools.pairwise(BLANK))


@given(ANY_TEXT, st.text(st.sampled_from(BLANKS)), st.text(st.sampled_from(BLANKS)))
def test_what_surrounds_an_identifier_changes_nothing(text: str, before: str, after: str) -> None:
    cleaned = clean_identifier(text)
    assert clean_identifier(before + text + after) == cleaned
    assert clean_identifier(cleaned) == cleaned
    assert cleaned in text


@pytest.mark.parametrize(
    "pad", ["\u00a0", "\u2003", "\u3000", "\u200b", "\ufeff", "\u2060", "\x85"]
)
def test_a_request_with_padded_names_is_the_request_without(pad: str) -> None:
    plain = {"user_id": "u1", "session_key": "user:u1:writer", "idempotency_key": "k"}
    padded = {name: f"{pad}{value}{pad}" for name, value in plain.items()}
    one, two = (
        parse_send_request({**fields, "agent_role": role, "message": "Hello"})
        for fields, role in ((plain, "writer"), (padded, f"writer{pad}"))
    )
    assert one == two
    assert (two.user_id, two.session, two.role) == ("u1", "user:u1:writer", "writer")


@pytest.mark.parametrize(
    "user",
    [
        "u\x001",
        "u\x851",
        "u\u200b1",
        "u\u00a01",
        "a\u202eb",
        "u1\ufe0f",
        "\ufe0fu1",
        "u\u3164x",
        "e\u0301va",
        "\u212bngstrom",
    ],
)
def test_a_user_id_that_only_looks_like_another_is_refused(user: str) -> None:
    with pytest.raises(InvalidRequestError, match="user_id: must"):
        parse_send_request({"user_id": user, "message": "Hello"})
    key = f"user:{user}:writer"
    with pytest.raises(InvalidRequestError, match=r"session_key|user_id"):
        parse_send_request({"user_id": user, "session_key": key, "message": "Hello"})


@pytest.mark.parametrize(
    "user", ["u1", "U 1", "jürgen", "利用者", "🦊", "❤️", "1️⃣", "a:b@c.de", "+/="]
)
def test_any_other_user_id_is_taken_as_it_is(user: str) -> None:
    assert check_user_id(user) == user


def test_ids_that_differ_in_case_are_different_users() -> None:
    with pytest.raises(InvalidRequestError, match="names another user"):
        parse_send_request({"user_id": "u1", "session_key": "user:U1:writer", "message": "Hello"})
