"""What a message may not do to another's turn, whatever its header says; and protocol 1."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from clasper_worker.engine.queue.identity import turn_id_for
from clasper_worker.engine.queue.message import Route
from tests.unit.engine.queue.turns import Broker, job_of, jobs_of, message

VICTIM: dict[str, Any] = {"user_id": "victim", "session_key": "user:victim:r"}
OWN = {"user_id": "mallory", "session_key": "user:mallory:r", "message": "Hello"}


def routed(route: dict[str, Any], *, job: str = "evil", **kwargs: Any) -> bytes:
    return message(job=job, headers={"clasper_route": route}, **kwargs)


def test_a_header_that_names_anothers_session_interrupts_nobody(broker: Broker) -> None:
    broker.send("a", "victim")
    running = broker.take_one()
    broker.push(routed({**VICTIM, "metadata": {"busy": "interrupt"}}, **OWN))
    found = broker.take()
    assert found.interrupts == ()
    (evil,) = found.deliveries
    assert (job_of(evil), evil.verdict) == ("evil", "misrouted")
    assert broker.schedule().renew([running.token]).cancelled == ()
    broker.send("b", "victim")
    assert broker.jobs(settled=[running.token, evil.token]) == ["b"]


def test_a_header_that_adds_the_interruption_alone_interrupts_nobody_either(
    broker: Broker,
) -> None:
    broker.send("a", "victim")
    broker.take_one()
    route = {**VICTIM, "metadata": {"busy": "interrupt"}}
    broker.push(routed(route, **VICTIM, message="Hello"))
    found = broker.take()
    assert (found.interrupts, found.deliveries[0].verdict) == ((), "misrouted")


def test_one_that_says_what_its_body_says_interrupts(broker: Broker) -> None:
    broker.send("a", "victim")
    broker.take_one()
    request = {**VICTIM, "metadata": {"busy": "interrupt"}}
    broker.push(routed(request, **request, message="Hello"))
    assert broker.take().interrupts == ("a",)


def test_one_whose_body_cannot_be_read_here_waits_instead_of_interrupting(broker: Broker) -> None:
    broker.send("a", "victim")
    running = broker.take_one()
    request = {**VICTIM, "metadata": {"busy": "interrupt"}}
    broker.push(message(job="b", headers={"clasper_route": request}, body="compressed"))
    found = broker.take()
    assert (found.interrupts, found.deliveries) == ((), ())
    assert broker.jobs(settled=[running.token]) == ["b"]


def test_a_heartbeat_is_not_stopped_for_a_header_that_is_not_true(broker: Broker) -> None:
    broker.push(message("clasper.heartbeat", job="beat", user_id="victim", agent_role="r"))
    broker.take_one()
    broker.push(routed(VICTIM, **OWN))
    assert broker.take().interrupts == ()


def test_a_heartbeats_session_is_its_users_and_roles_whatever_key_it_has(broker: Broker) -> None:
    fields = {"user_id": "u", "agent_role": "r", "session_key": "user:u:other"}
    broker.push(message("clasper.heartbeat", job="beat", **fields))
    (beat,) = broker.take().deliveries
    broker.send("a", "u", "other")
    broker.send("b", "u", "r")
    assert broker.jobs() == ["a"]
    assert broker.jobs(settled=[beat.token]) == ["b"]


def old(
    job: Any, kwargs: Any, *, base64_body: bool = True, headers: Any = None, **more: Any
) -> bytes:
    """A message of protocol 1."""
    body = json.dumps({"task": "clasper.send", "id": job, "args": [], "kwargs": kwargs, **more})
    properties: dict[str, Any] = {"delivery_tag": "t", "correlation_id": job}
    if base64_body:
        body = base64.b64encode(body.encode()).decode()
        properties["body_encoding"] = "base64"
    made = {"body": body, "properties": properties}
    return json.dumps(made if headers is None else {**made, "headers": headers}).encode()


@pytest.mark.parametrize("headers", [None, {}, [], {"id": None}, "nonsense"])
@pytest.mark.parametrize("base64_body", [True, False])
def test_a_message_of_protocol_1_has_the_lane_the_user_and_the_turn_of_any_other(
    broker: Broker, headers: Any, base64_body: bool
) -> None:
    request = {**VICTIM, "message": "Hello", "idempotency_key": "k"}
    broker.send("a", "victim")
    running = broker.take_one()
    broker.push(old("b", request, headers=headers, base64_body=base64_body))
    assert broker.jobs() == []
    turn, user = broker.client.hmget("clasper:message:t", "u", "t")
    assert (turn.decode(), user.decode()) == (turn_id_for("victim", "k", "b"), "victim")
    (delivery,) = broker.take(settled=[running.token]).deliveries
    assert delivery.token.startswith("t#")


@pytest.mark.parametrize("kwargs", [None, [], 7, {}, {"user_id": None}])
def test_one_without_a_user_has_no_lane_and_runs(broker: Broker, kwargs: Any) -> None:
    broker.push(old("b", kwargs))
    assert [one.token[:2] for one in broker.take().deliveries] == ["t#"]


@pytest.mark.parametrize("body", ["AAAA", "not Base64", "", None, 7])
def test_one_whose_body_is_no_json_is_buried_under_its_jobs_name(broker: Broker, body: Any) -> None:
    raw = json.loads(old("b", {}))
    broker.push(json.dumps({**raw, "body": body}).encode())
    (burial,) = broker.take().buried
    assert burial.job_id == "b"
    assert "task_serializer = 'json'" in burial.reason


def test_tags_that_are_numbers_are_no_names_of_messages(broker: Broker) -> None:
    for job in ("a", "b"):
        raw = json.loads(old(job, {"user_id": "u", "message": "Hello", "agent_role": job}))
        raw["properties"]["delivery_tag"] = 7
        broker.push(json.dumps(raw).encode())
    assert {one.token[:2] for one in broker.take().deliveries} == {"a#", "b#"}


def test_a_route_is_read_of_anything() -> None:
    nothing: Any
    for nothing in (None, [], 7, "u", {}, {"user_id": 7}, {"user_id": "\u200b"}):
        assert Route.of(nothing) == Route()


def test_the_jobs_of_turns_that_do_not_disagree_run_as_ever(broker: Broker) -> None:
    broker.push(routed(VICTIM, job="a", **VICTIM, message="Hello"))
    assert jobs_of(broker.take().deliveries) == ["a"]
