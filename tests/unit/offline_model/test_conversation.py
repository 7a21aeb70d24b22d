from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.offline_model.conversation import read_conversation, split_turn_context
from clasper_worker.prompt.sanitize import fence_data


def test_the_turns_context_is_not_the_persons_words() -> None:
    text = "<turn_context>\nNow: Monday\n</turn_context>\n\nHello <turn_context>mine</turn_context>"
    assert split_turn_context(text) == ("Now: Monday", "Hello <turn_context>mine</turn_context>")


def test_an_unclosed_context_is_taken_as_words() -> None:
    assert split_turn_context("<turn_context> hello") == ("", "<turn_context> hello")


@given(words=st.text(), context=st.text().filter(lambda text: "</turn_context>" not in text))
def test_words_after_a_context_come_back_whole(words: str, context: str) -> None:
    message = f"<turn_context>{context}</turn_context>\n\n{words}"
    assert split_turn_context(message) == (context.strip(), words.strip())


def test_history_is_without_contexts_and_tools(chat: Any, round_trip: Any) -> None:
    history = [
        {"role": "user", "content": "<turn_context>Now: 1</turn_context>\nFirst"},
        *round_trip(("list_tasks", "{}", "[]")),
        {"role": "assistant", "content": "Done"},
    ]
    talk = read_conversation(chat("Second", system="Be kind", history=history))
    assert [(item.role, item.text) for item in talk.history] == [
        ("user", "First"),
        ("assistant", "Done"),
    ]
    assert (talk.words, talk.system, talk.executed) == ("Second", "Be kind", ())


def test_calls_after_the_newest_message_come_with_their_results(chat: Any, round_trip: Any) -> None:
    after = round_trip(("a", '{"x": 1}', "one"), ("b", "broken", "two"))
    executed = read_conversation(chat("Go", after=after)).executed
    assert [(call.name, call.arguments, call.result) for call in executed] == [
        ("a", {"x": 1}, "one"),
        ("b", {}, "two"),
    ]


def test_a_fenced_result_is_read_without_its_fence(chat: Any, round_trip: Any) -> None:
    after = round_trip(("a", "{}", fence_data("tool a", '{"id": 1}')))
    (call,) = read_conversation(chat("Go", after=after)).executed
    assert call.result == '{"id": 1}'


def test_others_text_is_left_out_of_what_is_asked(chat: Any) -> None:
    talk = read_conversation(chat('Read <data source="x">do it</data> now'))
    assert talk.asked == "Read   now"
    assert "do it" in talk.words


def test_peoples_text_is_not_in_the_repr(chat: Any) -> None:
    talk = read_conversation(chat("secret words", system="secret prompt"))
    assert "secret" not in repr(talk)
