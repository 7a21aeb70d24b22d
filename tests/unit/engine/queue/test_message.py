"""Task messages as they lie in Redis, read."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.compression import compress

from clasper_worker.engine.queue.delivery import collected_requests
from clasper_worker.engine.queue.identifiers import clean_identifier
from clasper_worker.engine.queue.identity import turn_id_for
from clasper_worker.engine.queue.message import read_task_message, without_expiry

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def encoded(kwargs: Any, *, task: str = "clasper.send", base64_body: bool = True) -> bytes:
    body = json.dumps([[], kwargs, {}])
    properties = {"body_encoding": "base64"} if base64_body else {}
    text = base64.b64encode(body.encode()).decode() if base64_body else body
    headers = {"id": "a", "task": task}
    return json.dumps({"body": text, "headers": headers, "properties": properties}).encode()


@pytest.mark.parametrize("base64_body", [True, False])
def test_a_message_gives_its_job_task_and_arguments(base64_body: bool) -> None:
    message = read_task_message(encoded({"user_id": "u"}, base64_body=base64_body))
    assert message is not None
    assert (message.job_id, message.task, message.kwargs) == ("a", "clasper.send", {"user_id": "u"})


NAME = st.text().map(clean_identifier)


@given(user=NAME.filter(bool), key=NAME)
def test_its_turn_is_the_one_that_the_worker_finds(user: str, key: str) -> None:
    message = read_task_message(encoded({"user_id": user, "idempotency_key": key}))
    assert message is not None
    assert message.turn_id == turn_id_for(user, key or None, "a")


def test_another_tasks_turn_is_its_job() -> None:
    message = read_task_message(encoded({"user_id": "u", "idempotency_key": "k"}, task="other"))
    assert message is not None
    assert message.turn_id == "a"


@given(raw=st.binary() | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_what_is_no_message_is_none(raw: bytes) -> None:
    assert read_task_message(raw) is None


@given(
    body=ANYTHING, headers=st.fixed_dictionaries({"id": ANYTHING, "task": ANYTHING}), rest=ANYTHING
)
def test_no_message_makes_it_fail(body: Any, headers: Any, rest: Any) -> None:
    raw = json.dumps({"body": body, "headers": headers, "properties": rest}).encode()
    message = read_task_message(raw)
    assert message is None or isinstance(message.turn_id, str)


def compressed(job: str, kwargs: dict[str, Any]) -> bytes:
    """As a producer sends it that has set Celery's ``task_compression``."""
    raw = json.loads(encoded(kwargs))
    body, kind = compress(base64.b64decode(raw["body"]), "gzip")
    raw["body"] = base64.b64encode(body).decode()
    raw["headers"] |= {"id": job, "compression": kind}
    return json.dumps(raw).encode()


def test_a_message_of_protocol_1_is_read_and_its_expiry_taken_off() -> None:
    body: dict[str, Any] = {
        "task": "clasper.send",
        "id": "a",
        "args": [],
        "kwargs": {"user_id": "u"},
    }
    body |= {"expires": "2020-01-01T00:00:00", "callbacks": [{"task": "shop.note"}], "retries": 2}
    properties = {"body_encoding": "base64", "delivery_tag": "t"}
    text = base64.b64encode(json.dumps(body).encode()).decode()
    raw = json.dumps({"body": text, "properties": properties}).encode()
    message = read_task_message(raw)
    assert message is not None
    assert (message.job_id, message.task, message.kwargs) == ("a", "clasper.send", {"user_id": "u"})
    assert message.headers["retries"] == 2
    assert message.follow_ups["callbacks"] == [{"task": "shop.note"}]
    left = read_task_message(without_expiry(raw).encode())
    assert left is not None
    assert left.headers == {**message.headers, "expires": None}
    assert (left.kwargs, left.follow_ups) == (message.kwargs, message.follow_ups)


def test_a_compressed_body_is_read() -> None:
    message = read_task_message(compressed("a", {"user_id": "u"}))
    assert message is not None
    assert message.kwargs == {"user_id": "u"}


def test_a_compressed_message_can_be_collected() -> None:
    request = {"user_id": "u", "message": "Hi"}
    assert collected_requests([compressed("a", request)]) == [{"job_id": "a", "request": request}]


def test_peoples_text_is_not_in_its_repr() -> None:
    assert "secret" not in repr(read_task_message(encoded({"message": "secret"})))


@given(headers=st.dictionaries(st.text(), ANYTHING))
def test_an_expiry_is_taken_off_and_nothing_else(headers: dict[str, Any]) -> None:
    given = {"body": "{\u00e9", "headers": {**headers, "expires": "2020-01-01T00:00:00+00:00"}}
    left = json.loads(without_expiry(json.dumps(given).encode()))
    assert left == {**given, "headers": {**headers, "expires": None}}


@pytest.mark.parametrize(
    "raw",
    [
        encoded({}),
        b'{"headers": {"expires": null}}',
        b"\xff",
        b"[]",
        b'{"headers": 7}',
        b"[" * 9999,
    ],
)
def test_a_message_without_an_expiry_is_left_as_it_is(raw: bytes) -> None:
    assert without_expiry(raw) == ""
