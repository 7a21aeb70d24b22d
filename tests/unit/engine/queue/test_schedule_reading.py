"""What the scheduler reads of a message: whose it is, which session's, and which turn."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from celery import Celery
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from clasper_worker.client import ClasperClient
from clasper_worker.engine.queue.identifiers import BLANK, clean_identifier
from clasper_worker.engine.queue.identity import turn_id_for
from clasper_worker.engine.queue.message import Route, route_header
from clasper_worker.turn.admission import Admission
from tests.examples import examples
from tests.unit.engine.queue.turns import Broker, message

BLANKS = [chr(point) for bounds in BLANK for point in bounds]
ANY_TEXT = st.text(
    st.sampled_from(BLANKS) | st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40
)
TEXT = ANY_TEXT.filter(lambda text: clean_identifier(text) != "")
each_on_one_server = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(broker: Broker, raw: bytes) -> dict[str, str]:
    """The fields that the scheduler keeps of a message, but the moment that it came."""
    broker.client.flushall()
    broker.push(raw)
    broker.take(0)
    (key,) = broker.client.keys("clasper:message:*")
    return {
        name.decode(): value.decode()
        for name, value in broker.client.hgetall(key).items()
        if name not in {b"raw", b"at"}
    }


@given(user=TEXT, key=TEXT, padding=st.text(max_size=5))
@example(user="jürgen", key="schlüssel", padding="")
@example(user="利用者", key="鍵", padding="\x00")
@example(user="🦊", key="🗝️", padding='"\\')
@each_on_one_server
def test_the_turn_is_the_one_that_the_worker_will_name(
    broker: Broker, user: str, key: str, padding: str
) -> None:
    kwargs = {"user_id": user, "message": padding, "idempotency_key": key}
    found = read(broker, message(job="a-job", **kwargs))
    assert found["u"] == turn_id_for(clean_identifier(user), clean_identifier(key), "a-job")
    assert found["t"] == clean_identifier(user)


@given(user=TEXT, text=st.text(st.characters(exclude_categories=["Cs"])))
@each_on_one_server
def test_any_body_is_decoded_as_python_does_it(broker: Broker, user: str, text: str) -> None:
    # Not escaped: the bytes of every character, at every place of a group of Base64.
    body = json.dumps([[text], {"message": text, "user_id": user}, {}], ensure_ascii=False)
    assert read(broker, message(body=body))["t"] == clean_identifier(user)


@given(size=st.integers(0, 2000))
@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bodies_of_any_length_are_decoded(broker: Broker, size: int) -> None:
    assert read(broker, message(message="x" * size, user_id="u"))["t"] == "u"


def test_without_an_idempotency_key_the_job_is_the_turn(broker: Broker) -> None:
    assert read(broker, message(job="a-job", user_id="u"))["u"] == "a-job"


def test_a_body_that_is_not_encoded_is_read_too(broker: Broker) -> None:
    raw = json.loads(message(user_id="u"))
    raw["body"] = base64.b64decode(raw["body"]).decode()
    raw["properties"]["body_encoding"] = "utf-8"
    assert read(broker, json.dumps(raw).encode())["t"] == "u"


@pytest.mark.parametrize("body", ["!!!!", "AAA", "A", "====", "AA==AA==", "\n", "ä"])
def test_a_body_that_is_not_base64_has_no_session(broker: Broker, body: str) -> None:
    raw = json.loads(message(user_id="u"))
    raw["body"] = body
    assert read(broker, json.dumps(raw).encode())["s"] == ""


def test_sessions_of_different_users_are_different_lanes(broker: Broker) -> None:
    lanes = {
        read(broker, message(user_id=user, session_key=session))["s"]
        for user, session in [("u", "user:v:r"), ("v", "user:v:r"), ("uuser:", "v:r"), ("u", "v:r")]
    }
    assert len(lanes) == 4


ROUTE = {"user_id": "u", "session_key": "user:u:r", "agent_role": "r", "idempotency_key": "k"}


def test_a_route_in_the_headers_stands_for_the_body(broker: Broker) -> None:
    by_body = read(broker, message(job="a", tag="t", **ROUTE, metadata={"busy": "collect"}))
    route = {**ROUTE, "metadata": {"busy": "collect"}}
    by_route = read(
        broker, message(job="a", tag="t", body="never read", headers={"clasper_route": route})
    )
    assert by_route == by_body
    assert by_route["b"] == "collect"


# Integers as Redis can read them: fakeredis does not take longer ones.
ANYTHING = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(max_size=5)
    | st.lists(st.text(), max_size=1)
)


@given(
    task=st.sampled_from(["clasper.send", "clasper.heartbeat", "clasper.compact"]),
    user=TEXT | ANYTHING,
    more=st.dictionaries(
        st.sampled_from(["session_key", "agent_role", "idempotency_key", "message"]), ANYTHING
    ),
    metadata=ANYTHING | st.dictionaries(st.sampled_from(["busy", "other"]), ANYTHING),
)
@each_on_one_server
def test_the_route_that_our_client_sends_says_what_the_body_says(
    broker: Broker, task: str, user: object, more: dict[str, Any], metadata: object
) -> None:
    request = {"user_id": user, **more, "metadata": metadata}
    by_body = read(broker, message(task, job="a", tag="t", **request))
    by_route = read(
        broker, message(task, job="a", tag="t", headers=route_header(task, request), **request)
    )
    assert by_route == by_body


def expected(route: Route, job: str) -> dict[str, str]:
    """What the scheduler keeps of a turn of this route."""
    if not route.user_id:
        return {"t": "", "s": "", "u": job, "b": ""}
    size = len(route.user_id.encode())
    lane = f"{size}:{route.user_id}{route.session_key}"
    key = route.idempotency_key or None
    return {
        "t": route.user_id,
        "s": hashlib.sha1(lane.encode()).hexdigest(),
        "u": turn_id_for(route.user_id, key, job),
        "b": route.busy,
    }


FIELDS = ("user_id", "session_key", "agent_role", "idempotency_key")


@given(fields=st.dictionaries(st.sampled_from(FIELDS), ANY_TEXT), user=TEXT)
@example(fields={}, user="\u2003u1\u200b")
@example(fields={"agent_role": "writer\u3000", "idempotency_key": "\ufeffk\u00a0"}, user="u\u2028")
@example(fields={"session_key": "user:u1:writer\u2060"}, user="u1\U000e0001")
@each_on_one_server
def test_python_and_the_script_read_the_same_user_session_and_turn_of_any_text(
    broker: Broker, fields: dict[str, str], user: str
) -> None:
    request = {"user_id": user, **fields}
    body = json.dumps([[], request, {}], ensure_ascii=False)
    found = read(broker, message(job="a-job", body=body))
    assert {name: found[name] for name in ("t", "s", "u", "b")} == expected(
        Route.of(request), "a-job"
    )


def test_half_a_surrogate_pair_in_a_request_does_not_spoil_its_message(broker: Broker) -> None:
    request = {"user_id": "u", "session_key": "\ud800", "metadata": {"busy": "\udfff"}}
    assert read(broker, message(headers=route_header("clasper.send", request)))["t"] == "u"


@pytest.mark.parametrize("route", [None, "u", 1, True])
def test_a_route_that_is_none_is_passed_over(broker: Broker, route: Any) -> None:
    assert read(broker, message(user_id="u", headers={"clasper_route": route}))["t"] == "u"


@pytest.mark.parametrize("route", [{}, [], {"user_id": None}, {"user_id": {}}])
def test_a_route_without_a_user_has_no_session(broker: Broker, route: Any) -> None:
    assert read(broker, message(user_id="u", headers={"clasper_route": route}))["s"] == ""


def test_our_client_says_the_route_in_a_header(real_broker: Broker) -> None:
    url = "redis://{host}:{port}/0".format(**real_broker.client.connection_pool.connection_kwargs)
    client = ClasperClient(url, url, admission=Admission(default_task="T"))
    request = {"user_id": "u", "message": "Hello", "metadata": {"busy": "reject", "other": 1}}
    client.send(request, job_id="a-job")
    client.submit("clasper.compact", {"user_id": "u"}, job_id="b-job")
    client.close()
    turn, other = real_broker.take().deliveries
    route = {"user_id": "u", "metadata": {"busy": "reject"}}
    assert json.loads(turn.raw)["headers"]["clasper_route"] == route
    assert "clasper_route" not in json.loads(other.raw)["headers"]


def test_a_stock_celery_producers_message_is_read(real_broker: Broker) -> None:
    client = real_broker.client
    url = "redis://{host}:{port}/0".format(**client.connection_pool.connection_kwargs)
    with Celery("a_backend", broker=url, set_as_current=False) as app:
        kwargs = {"user_id": "jürgen", "message": "Hello", "idempotency_key": "k"}
        app.send_task("clasper.send", kwargs=kwargs, queue="clasper", task_id="a-job", priority=5)
    real_broker.take(0)
    (key,) = client.keys("clasper:message:*")
    turn, user = client.hmget(key, "u", "t")
    assert (turn.decode(), user.decode()) == (turn_id_for("jürgen", "k", "a-job"), "jürgen")


def test_long_white_space_in_a_name_does_not_hold_redis_up(broker: Broker) -> None:
    # Trimmed by one lazy pattern this would take minutes.
    name = "a" + " " * 200_000 + "b"
    found = read(broker, message(job="a-job", user_id=f" {name} ", idempotency_key=name))
    assert found["t"] == name
    assert found["u"] == turn_id_for(name, name, "a-job")
