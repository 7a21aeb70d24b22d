"""A listed notification as the turn that it becomes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.errors import InvalidRequestError
from clasper_worker.periodic.notification import (
    Malformed,
    NotificationKey,
    NotificationTurn,
    notification_of,
    read_delivery,
    refuse_malformed,
)
from clasper_worker.turn.request import RequestLimits, parse_send_request

GOOD = {"notification_id": "n1", "user_id": "u1", "content": "Hello", "session_key": "user:u1:r"}


def read(default: str | None = None, **fields: Any) -> NotificationTurn | Malformed:
    return read_delivery({**GOOD, **fields}, default_title=default, limits=RequestLimits())


def request(default: str | None = None, **fields: Any) -> Any:
    turn = read(default, **fields)
    assert isinstance(turn, NotificationTurn)
    return turn.request


def test_the_task_is_its_own_else_its_titles_else_the_default_else_one_for_notifications() -> None:
    assert request("D", task_id="t", task_title="T")["task_id"] == "t"
    assert "task_title" not in request("D", task_id="t", task_title="T")
    assert request("D", task_title="T")["task_title"] == "T"
    assert request("D", title="Sub")["task_title"] == "Sub"
    assert request("D", task_id="", task_title=" ")["task_title"] == "D"
    assert request(None)["task_title"] == "Notifications"
    assert len(request(task_title="x" * 999)["task_title"]) == 256


def test_the_same_notification_is_the_same_turn_whatever_else_is_listed_of_it() -> None:
    one, two = request(), request(created_at="now", priority=3)
    assert one == two
    assert one["idempotency_key"] != request(notification_id="n2")["idempotency_key"]
    assert request(notification_id=7)["idempotency_key"] == "notification:7"
    long = request(notification_id="x" * 1000)
    assert len(parse_send_request(long).idempotency_key or "") <= 256


def test_the_turn_names_its_notification() -> None:
    turn = read()
    assert isinstance(turn, NotificationTurn)
    assert notification_of(turn.mark, turn.request) == NotificationKey("u1", "n1")
    padded = {"user_id": "\u2003u1\u200b"}
    assert notification_of({"notification_id": "n1"}, padded) == NotificationKey("u1", "n1")
    mark: Any
    for mark in (None, True, {}, {"notification_id": 1}, {"notification_id": ""}, []):
        assert notification_of(mark, {"user_id": "u1"}) is None
    assert notification_of({"notification_id": "n1"}, {"user_id": 1}) is None


def test_nothing_in_the_request_itself_names_the_notification() -> None:
    turn, bad = read(), read(content="")
    assert isinstance(turn, NotificationTurn)
    assert isinstance(bad, Malformed)
    assert turn.request["metadata"] == {"busy": "enqueue"}
    assert "metadata" not in bad.request


def test_without_a_session_key_the_role_says_which_session() -> None:
    turn = read(session_key=None, agent_role="writer")
    assert isinstance(turn, NotificationTurn)
    assert turn.session == "user:u1:writer"


@pytest.mark.parametrize(
    "fields",
    [
        {"user_id": None},
        {"content": ""},
        {"notification_id": ""},
        {"session_key": "user:someone-else:r"},
        {"session_key": "nonsense"},
        {"content": "x" * 200_000},
    ],
)
def test_what_cannot_be_a_turn_is_malformed_and_fails_with_the_reason(
    fields: dict[str, Any],
) -> None:
    found = read(**fields)
    assert isinstance(found, Malformed)
    (field,) = fields
    with pytest.raises(InvalidRequestError, match=f"{field}|message: has") as err:
        refuse_malformed(found.mark)
    assert found.reason in str(err.value)
    assert "xxx" not in str(err.value)


def test_one_without_an_id_is_never_answered_although_all_that_a_turn_needs_is_there() -> None:
    found = read_delivery(
        {"user_id": "u1", "content": "Hi", "task_id": "t"},
        default_title="D",
        limits=RequestLimits(),
    )
    assert isinstance(found, Malformed)
    with pytest.raises(InvalidRequestError, match="notification_id"):
        refuse_malformed(found.mark)
    for mark in (None, {}, {"notification_id": "n1"}, {"malformed": True}):
        refuse_malformed(mark)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*GOOD, "x"]), inner),
        max_leaves=20,
    )
)
def test_whatever_is_listed_is_a_turn_or_malformed(raw: Any) -> None:
    found = read_delivery(raw, default_title=None, limits=RequestLimits())
    if isinstance(found, NotificationTurn):
        parse_send_request(found.request)
    else:
        assert found.note.startswith("notification:")
        parse_send_request(found.request)  # so that it gets to where it fails
        with pytest.raises(InvalidRequestError):
            refuse_malformed(found.mark)
