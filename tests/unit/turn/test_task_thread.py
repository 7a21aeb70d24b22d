"""The conversation before a turn, from a backend that keeps it."""

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.llm.messages import ChatMessage
from clasper_worker.mission_control.models import Message
from clasper_worker.turn.request import parse_send_request
from clasper_worker.turn.task_thread import load_history

REQUEST = parse_send_request({"user_id": "u1", "message": "the newest"})


class Backend:
    """Has messages on a task: a question and its answer in turns, or what it is given."""

    def __init__(self, count: int, actors: tuple[str, ...] = ("user", "agent")) -> None:
        self._messages = [
            Message(
                id=str(number),
                task_id="t1",
                content=f"message {number}",
                actor_type=actors[number % len(actors)],
            )
            for number in range(count)
        ]

    async def has(self, feature: str) -> bool:
        return feature == "history"

    async def messages(self, task_id: str) -> AsyncIterator[Message]:
        assert task_id == "t1"
        for message in self._messages:
            yield message


async def told(backend: Any, limit: int) -> tuple[ChatMessage, ...]:
    return (await load_history(REQUEST, backend, "t1", limit=limit)).messages


async def test_a_conversation_within_the_limit_is_told_whole() -> None:
    assert len(await told(Backend(50), 50)) == 50
    assert len(await told(Backend(7, ("agent",)), 50)) == 7


async def test_consecutive_turns_of_a_long_conversation_begin_with_the_same_history() -> None:
    turns = [await told(Backend(count), 50) for count in range(60, 121, 2)]
    starts = [turn[0].content for turn in turns]
    extended = [after[: len(before)] == before for before, after in pairwise(turns)]
    assert len(set(starts)) == 7  # a step of 10 messages is 5 turns
    assert extended.count(False) == 6
    assert len(extended) == 30


@given(
    count=st.integers(0, 130),
    limit=st.integers(1, 60),
    actors=st.lists(st.sampled_from(["user", "agent"]), min_size=1, max_size=5),
)
@pytest.mark.asyncio
async def test_the_newest_messages_are_told_within_the_limit_and_begin_with_a_question(
    count: int, limit: int, actors: list[str]
) -> None:
    messages = await told(Backend(count, tuple(actors)), limit)
    assert len(messages) <= limit
    said = [f"message {number}" for number in range(count)]
    assert [message.content for message in messages] == said[count - len(messages) :]
    if count > limit and "user" in {message.role for message in messages}:
        assert messages[0].role == "user"
    if "user" not in actors:
        assert len(messages) >= min(count, limit - limit // 5)


async def test_a_message_that_the_backend_has_recorded_already_is_not_told_twice() -> None:
    backend = Backend(3, ("agent",))
    newest = Message(id="x", task_id="t1", content="the newest", actor_type="user")
    backend._messages.append(newest)
    assert [message.content for message in await told(backend, 3)] == [
        "message 0",
        "message 1",
        "message 2",
    ]
