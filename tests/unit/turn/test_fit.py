from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.llm.messages import ChatMessage, ToolCall
from clasper_worker.llm.tokens import TokenCounter, estimated
from clasper_worker.llm.windows import ModelWindow
from clasper_worker.testing import says
from clasper_worker.turn.fit import exchanges, fit_history, window_warning

FIXED = (ChatMessage("system", "You are kind."), ChatMessage("user", "And now?"))


def window(tokens: int, reply: int = 0) -> ModelWindow:
    return ModelWindow(tokens, reply, TokenCounter())


def fit(history: Any, tokens: int, *, tools: int = 0) -> Any:
    return fit_history(history, fixed=FIXED, tools=tools, window=window(tokens))


def exchange(number: int, chars: int = 400) -> list[ChatMessage]:
    return [
        ChatMessage("user", f"question {number} ".ljust(chars // 2, ".")),
        ChatMessage("assistant", f"answer {number} ".ljust(chars // 2, ".")),
    ]


def conversation(count: int) -> list[ChatMessage]:
    return [message for number in range(count) for message in exchange(number)]


TOOL_EXCHANGE = [
    ChatMessage("user", "look it up"),
    ChatMessage("assistant", None, (ToolCall("c1", "find", "{}"), ToolCall("c2", "find", "{}"))),
    ChatMessage("tool", "x" * 300, tool_call_id="c1"),
    ChatMessage("tool", "y" * 300, tool_call_id="c2"),
    ChatMessage("assistant", "found"),
]

HISTORIES = st.lists(
    st.one_of(
        st.integers(1, 900).map(lambda chars: exchange(0, chars)),
        st.just(TOOL_EXCHANGE),
        st.just([ChatMessage("system", "Summary: all went well.")]),
        st.just([ChatMessage("assistant", "By the way")]),
        st.just([ChatMessage("user", "unanswered")]),
    ),
    max_size=30,
).map(lambda groups: [message for group in groups for message in group])


@given(HISTORIES, st.integers(256, 6_000))
def test_what_stays_fits_or_is_only_what_may_not_go(history: Any, tokens: int) -> None:
    fitted = fit(history, tokens)
    kept = list(fitted.messages)
    total = sum(map(estimated, (*FIXED, *kept)))
    assert fitted.dropped == len(history) - len(kept)
    assert fitted.estimate == total
    assert total <= tokens * 0.95 or all(message.role == "system" for message in kept)


@given(HISTORIES, st.integers(256, 6_000))
def test_what_stays_is_the_newest_part_in_order_with_every_system_message(
    history: Any, tokens: int
) -> None:
    kept = fit(history, tokens).messages
    assert [m for m in kept if m.role == "system"] == [m for m in history if m.role == "system"]
    spoken = [message for message in history if message.role != "system"]
    still = [message for message in kept if message.role != "system"]
    assert still == spoken[len(spoken) - len(still) :]


@given(HISTORIES, st.integers(256, 6_000))
def test_a_tool_result_never_stands_without_its_call_nor_a_call_without_its_results(
    history: Any, tokens: int
) -> None:
    kept = [message for message in fit(history, tokens).messages if message.role != "system"]
    called = [call.id for message in kept for call in message.tool_calls]
    assert called == [message.tool_call_id for message in kept if message.role == "tool"]
    for before, after in pairwise(kept):
        if after.role == "tool":
            assert before.tool_calls or before.role == "tool"


@given(HISTORIES)
def test_exchanges_are_the_conversation_cut_before_each_message_of_the_users(history: Any) -> None:
    cut = list(exchanges(history))
    assert [message for part in cut for message in part] == history
    assert all(part[0].role == "user" for part in cut[1:])
    assert all(message.role != "user" for part in cut for message in part[1:])


def test_a_conversation_that_fits_stays_whole() -> None:
    history = conversation(4)
    assert fit(history, 128_000).messages == tuple(history)
    assert fit(history, 600).messages == tuple(history)


def test_a_short_history_loses_what_must_go_alone() -> None:
    fitted = fit(conversation(4), 450)
    assert fitted.messages == tuple(conversation(4)[2:])
    assert fitted.dropped == 2


def test_the_reply_and_the_tools_take_their_room() -> None:
    history = conversation(4)
    assert fit(history, 600, tools=200).dropped == 4
    room = ModelWindow(600, 200, TokenCounter())
    assert fit_history(history, fixed=FIXED, tools=0, window=room).dropped == 4


def test_a_long_conversation_begins_the_same_over_several_turns() -> None:
    starts = []
    for count in range(60, 80):
        kept = fit(conversation(count), 5_000).messages
        starts.append(kept[0].content)
    changes = sum(before != after for before, after in pairwise(starts))
    assert 1 <= changes <= 6


@pytest.mark.parametrize(
    ("used", "dropped", "words"),
    [(749, 0, ()), (750, 0, ("75%",)), (10, 3, ("3 older",)), (900, 2, ("90%", "2 older"))],
)
def test_the_warning_says_how_full_the_window_is_and_what_was_left_out(
    used: int, dropped: int, words: tuple[str, ...]
) -> None:
    fitted = fit((), 1_000)
    object.__setattr__(fitted, "dropped", dropped)
    warning = window_warning(fitted, used, window(1_000), 75)
    assert all(word in (warning or "") for word in words)
    assert (warning is None) == (not words)


async def test_a_turn_leaves_out_the_oldest_exchanges_and_says_so(harness: Any) -> None:
    from dataclasses import replace

    history = [
        {"role": role, "content": f"{role} {number} ".ljust(2_000, ".")}
        for number in range(20)
        for role in ("user", "assistant")
    ]
    harness.deps = replace(harness.deps, window=lambda _: window(4_000, 500))
    result, model = await harness.run(says("Fine."), messages=history)
    (asked,) = model.requests
    assert asked.messages[0].role == "system"
    assert asked.messages[1].content.startswith("user 1")
    assert len(asked.messages) < 10
    assert "older messages did not fit" in result.context_warning


async def test_a_turn_warns_by_what_the_provider_counted(harness: Any) -> None:
    result, _ = await harness.run(says("Fine.", prompt=100_000, completion=1_000))
    assert "78%" in result.context_warning
    quiet, _ = await harness.run(says("Fine.", prompt=90_000), turn_id="turn-2")
    assert quiet.context_warning is None
