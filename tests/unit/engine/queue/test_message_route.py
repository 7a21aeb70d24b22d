"""The header that says whose a turn is, against what the turn says itself."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.engine.queue.message import ROUTE_HEADER, Route, route_header
from clasper_worker.errors import InvalidRequestError
from clasper_worker.turn.request import parse_send_request
from clasper_worker.turn.route_check import refuse_misrouted

REQUEST = {"user_id": "u", "agent_role": "r", "message": "Hello", "idempotency_key": "k"}


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ({"user_id": "v", "agent_role": "r", "idempotency_key": "k"}, "user_id"),
        ({"user_id": "u", "agent_role": "s", "idempotency_key": "k"}, "session_key"),
        ({"user_id": "u", "idempotency_key": "k"}, "session_key"),
        ({"user_id": "u", "agent_role": "r"}, "idempotency_key"),
        ({**REQUEST, "metadata": {"busy": "interrupt"}}, "metadata.busy"),
        ({}, "user_id"),
        ([], "user_id"),
    ],
)
def test_one_that_says_something_else_is_refused_with_the_field(header: Any, field: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{ROUTE_HEADER}.{field}"):
        refuse_misrouted(header, REQUEST)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "u",
        7,
        {**REQUEST, "user_id": "\u3000u"},
        {"user_id": "u", "session_key": "user:u:r", "idempotency_key": "k "},
    ],
)
def test_none_and_one_that_says_the_same_in_other_words_are_taken(header: Any) -> None:
    refuse_misrouted(header, REQUEST)


def test_a_heartbeat_has_a_user_and_a_role_alone() -> None:
    refuse_misrouted({"user_id": "u"}, {"user_id": "u", "session_key": "x"}, is_turn=False)
    with pytest.raises(InvalidRequestError, match="session_key"):
        refuse_misrouted({"user_id": "u"}, {"user_id": "u", "agent_role": "x"}, is_turn=False)


VALUES = st.none() | st.integers() | st.text(max_size=5)
FIELDS = ("user_id", "session_key", "agent_role", "idempotency_key", "message")


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES), VALUES)
def test_our_own_header_never_disagrees(request: dict[str, Any], busy: Any) -> None:
    request = {**request, "metadata": {"busy": busy}}
    header = route_header("clasper.send", request)[ROUTE_HEADER]
    refuse_misrouted(header, request)


@given(st.text(min_size=1), st.sampled_from(["", "r", " r ", "\u2003writer"]), st.text(max_size=4))
def test_a_request_that_is_taken_is_the_scheduler_s_user_session_and_key(
    user: str, role: str, key: str
) -> None:
    fields = {"user_id": user, "message": "x"}
    fields |= {"agent_role": role} if role else {}
    fields |= {"idempotency_key": key} if key else {}
    try:
        request = parse_send_request(fields)
    except InvalidRequestError:
        return
    route = Route.of(fields)
    assert (route.user_id, route.session_key) == (request.user_id, request.session)
    assert (route.idempotency_key or None) == request.idempotency_key
