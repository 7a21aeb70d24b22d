"""What turns say, and what the model answers to it."""

import json

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.script import (
    find_token,
    is_reply_to,
    message_for,
    next_answer,
    number_of,
    reply_for,
    session_of,
    thread_of,
    token_of,
)

sessions = st.integers(0, 10_000).map(lambda number: f"s{number:03d}")
numbers = st.integers(0, 10_000)


@given(sessions, numbers)
def test_a_token_leads_back_to_its_session_and_number(session: str, number: int) -> None:
    token = token_of(session, number)
    assert (session_of(token), number_of(token)) == (session, number)
    assert find_token(message_for(token, tool=True)) == token


@given(sessions, numbers, numbers)
def test_a_reply_is_that_of_its_turn_alone_and_never_said_twice(
    session: str, number: int, other: int
) -> None:
    token = token_of(session, number)
    assert is_reply_to(token, reply_for(token, 1))
    assert reply_for(token, 1) != reply_for(token, 2)
    if other != number:
        assert not is_reply_to(token_of(session, other), reply_for(token, 1))


def test_only_the_newest_user_message_is_answered() -> None:
    messages = [
        {"role": "user", "content": message_for("s001.00")},
        {"role": "assistant", "content": reply_for("s001.00", 1)},
        {"role": "user", "content": f"It is noon.\n\n{message_for('s001.01')}"},
    ]
    token, step, answer = next_answer(messages, 7)
    assert (token, step) == ("s001.01", 1)
    assert answer["content"] == reply_for("s001.01", 7)


def test_a_turn_with_a_tool_creates_its_document_and_then_gets_the_reply() -> None:
    messages = [{"role": "user", "content": message_for("s001.00", tool=True)}]
    _, step, answer = next_answer(messages, 1)
    function = answer["tool_calls"][0]["function"]
    assert (step, function["name"]) == (1, "create_document")
    assert find_token(json.loads(function["arguments"])["title"]) == "s001.00"
    result = {"role": "tool", "tool_call_id": answer["tool_calls"][0]["id"], "content": "{}"}
    _, step, answer = next_answer([*messages, answer, result], 2)
    assert (step, answer["content"]) == (2, reply_for("s001.00", 2))


def test_heartbeats_and_standups_have_threads_of_their_own() -> None:
    tokens = ("s001.00", "h3.41", "d3.00")
    assert [thread_of(token) for token in tokens] == ["Thread s001", "Heartbeat", "Standup"]
    assert [find_token(message_for(token)) for token in tokens] == list(tokens)


def test_a_message_that_is_no_turn_s_has_no_token() -> None:
    assert next_answer([{"role": "user", "content": "Hello"}], 1)[0] is None
