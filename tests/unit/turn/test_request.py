"""What a send request may be, and what is said of one that is not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.errors import InvalidRequestError
from clasper_worker.turn.request import (
    RequestLimits,
    SendRequest,
    parse_send_request,
    split_session_key,
)

BASE = {"user_id": "u1", "message": "Hello"}


def fields_of(error: InvalidRequestError) -> list[str]:
    return [item["field"] for item in error.details["fields"]]


def refused(data: dict[str, Any], limits: RequestLimits | None = None) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        parse_send_request(data, limits)
    for item in caught.value.details["fields"]:
        assert item["problem"]
        assert item["fix"]
    return caught.value


def test_a_minimal_request_gets_the_default_role_and_its_session() -> None:
    request = parse_send_request(BASE)
    assert (request.role, request.session) == ("default", "user:u1:default")


def test_the_role_derives_the_session_key_and_the_other_way_round() -> None:
    by_role = parse_send_request({**BASE, "agent_role": "writer"})
    by_key = parse_send_request({**BASE, "session_key": "user:u1:writer"})
    assert by_role.session == by_key.session == "user:u1:writer"
    assert by_role.role == by_key.role == "writer"


def test_every_field_of_the_contract_is_taken() -> None:
    request = parse_send_request(
        {
            "user_id": "u1",
            "session_key": "user:u1:writer",
            "agent_role": "writer",
            "message": "Hello",
            "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}],
            "task_id": "t1",
            "task_title": "T",
            "task_description": "D",
            "task_metadata": {"type": "x"},
            "idempotency_key": "k",
            "stream": True,
            "webhook": {"url": "https://example.com/h", "secret": "s", "headers": {"a": "b"}},
            "metadata": {
                "system_prompt": "p",
                "kickoff_plan": True,
                "kickoff_note": "n",
                "plan_title": "P",
                "skipSmartContext": True,
                "forceIncludeSkills": ["a"],
                "smart_context_max_skills": 1,
                "smart_context_max_memory": 1,
                "smart_context_token_budget": 1,
                "busy": "collect",
                "timezone": "Europe/Berlin",
                "workspace": "w",
                "anything": {"else": 1},
            },
        }
    )
    assert request.metadata.model_extra == {"anything": {"else": 1}}
    assert request.instruction == "n\n\nHello"


def test_a_kickoff_plan_without_a_note_gets_the_default_note() -> None:
    request = parse_send_request({**BASE, "metadata": {"kickoff_plan": True}})
    assert request.instruction.startswith("Draft a concise plan")
    assert request.instruction.endswith("\n\nHello")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": "  "}, "user_id"),
        ({"user_id": 7}, "user_id"),
        ({"user_id": "a\nb"}, "user_id"),
        ({"message": ""}, "message"),
        ({"message": " \n"}, "message"),
        ({"message": None}, "message"),
        ({"agent_role": "../x"}, "agent_role"),
        ({"agent_role": ""}, "agent_role"),
        ({"session_key": "u1:writer"}, "session_key"),
        ({"session_key": "user:u1"}, "session_key"),
        ({"session_key": "user::writer"}, "session_key"),
        ({"session_key": "user:u1:../x"}, "session_key"),
        ({"session_key": "user:other:writer"}, "session_key"),
        ({"session_key": "user:u1:writer", "agent_role": "lead"}, "session_key"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": "hi"}, "messages"),
        ({"stream": "perhaps"}, "stream"),
        ({"mesage": "typo"}, "mesage"),
        ({"webhook": {"url": "ftp://x"}}, "webhook.url"),
        ({"webhook": {"url": "https://user:pw@x.example"}}, "webhook.url"),
        ({"webhook": {"url": "http://0x7f.1/"}}, "webhook.url"),
        ({"webhook": {"url": "https://x.example", "secret": ""}}, "webhook.secret"),
        ({"webhook": {"url": "https://x.example", "headers": {"Host": "y"}}}, "webhook.headers"),
        ({"metadata": {"timezone": "Mars/Olympus"}}, "metadata.timezone"),
        ({"metadata": {"busy": "later"}}, "metadata.busy"),
        ({"metadata": []}, "metadata"),
    ],
)
def test_a_bad_field_is_named(change: dict[str, Any], field: str) -> None:
    assert fields_of(refused({**BASE, **change})) == [field]


def test_missing_fields_are_all_named() -> None:
    assert fields_of(refused({})) == ["user_id", "message"]


def test_over_long_input_names_the_cap() -> None:
    limits = RequestLimits(message_chars=5, history_messages=1, request_chars=90)
    assert "6 characters; at most 5" in str(refused({**BASE, "message": "123456"}, limits))
    two = [{"role": "user", "content": "x"}] * 2
    assert "2 messages; at most 1" in str(refused({**BASE, "messages": two}, limits))
    for field in ("messages", "task_description", "metadata"):
        long = {"messages": [{"role": "user", "content": "x" * 90}], "task_description": "x" * 90,
                "metadata": {"system_prompt": "x" * 90}}[field]  # fmt: skip
        assert "CLASPER_MAX_REQUEST_CHARS" in str(refused({**BASE, field: long}, limits))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"user_id": "u\ud800"}, "user_id"),
        ({"user_id": "a\N{REPLACEMENT CHARACTER}b"}, "user_id"),
        ({"session_key": "user:u\ud83d:writer", "user_id": "u\ud83d"}, "user_id"),
        ({"task_id": "t\ud83d"}, "task_id"),
        ({"idempotency_key": "\ud83d"}, "idempotency_key"),
        ({"agent_role": "w\ud83d"}, "agent_role"),
        ({"webhook": {"url": "https://x.test/\ud83d"}}, "webhook.url"),
        ({"webhook": {"url": "https://x.test", "secret": "s\ud83d"}}, "webhook.secret"),
        ({"webhook": {"url": "https://x.test", "headers": {"X": "\ud83d"}}}, "webhook.headers"),
        ({"metadata": {"a": float("nan")}}, "metadata.a"),
    ],
)
def test_what_cannot_be_sent_on_is_refused_wherever_it_stands(
    change: dict[str, Any], field: str
) -> None:
    assert field in fields_of(refused({**BASE, **change}))


def test_half_an_emoji_in_what_is_only_passed_on_becomes_the_replacement_character() -> None:
    request = parse_send_request(
        {
            **BASE,
            "message": "hi \ud83d",
            "messages": [{"role": "user", "content": "\ude00"}],
            "task_title": "T \ud83d",
            "task_metadata": {"k\ud83d": ["\ud83d"]},
            "metadata": {"system_prompt": "\ud83d", "more": {"b": "\ud83d\ude00"}},
        }
    )
    assert (request.message, request.task_title) == ("hi \ufffd", "T \ufffd")
    assert request.messages is not None
    assert request.messages[0].content == "\ufffd"
    assert request.task_metadata == {"k\ufffd": ["\ufffd"]}
    assert request.metadata.system_prompt == "\ufffd"
    assert request.metadata.model_extra == {"more": {"b": "\U0001f600"}}


def test_deep_nesting_is_refused() -> None:
    nested: Any = []
    for _ in range(50_000):
        nested = [nested]
    error = refused({**BASE, "metadata": {"a": nested}})
    assert "levels deep" in str(error)


def test_errors_and_repr_do_not_show_what_was_said() -> None:
    error = refused({"user_id": "u1", "message": "SECRET", "session_key": "SECRET"})
    assert "SECRET" not in f"{error!r} {error.details}"
    request = parse_send_request({**BASE, "message": "SECRET", "metadata": {"x": "SECRET"}})
    assert "SECRET" not in repr(request)


def test_limits_follow_the_settings(settings_of: Any) -> None:
    limits = RequestLimits.from_settings(settings_of(clasper_max_request_chars=7))
    assert limits.request_chars == 7


@given(st.text())
def test_any_session_key_either_splits_back_to_itself_or_is_a_value_error(key: str) -> None:
    try:
        user_id, role = split_session_key(key)
    except ValueError:
        return
    assert f"user:{user_id}:{role}" == key


@given(
    st.dictionaries(
        st.sampled_from([*SendRequest.model_fields, "other"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.text()
        | st.lists(st.text())
        | st.dictionaries(st.text(), st.text()),
    )
)
def test_any_json_is_a_request_or_an_error_that_names_a_field(data: dict[str, Any]) -> None:
    try:
        request = parse_send_request(data)
    except InvalidRequestError as exc:
        named = [item["field"] for item in exc.details["fields"]]
    else:
        named = [request.session]
    assert named
    assert all(named)
