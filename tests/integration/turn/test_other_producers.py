"""Messages as clients in other languages and old Celery put them into Redis."""

import base64
import json
import pickle
import secrets
from typing import Any

import pytest
import redis
from celery.result import AsyncResult

from tests.integration.turn.conftest import Processes
from tests.waiting import until

pytestmark = [
    pytest.mark.integration,
    # Celery's result backend, with redis-py 8.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def old(job: str, kwargs: Any, **more: Any) -> dict[str, Any]:
    """The body of protocol 1."""
    return {"task": "clasper.send", "id": job, "args": [], "kwargs": kwargs, "retries": 0, **more}


def properties(job: str, **more: Any) -> dict[str, Any]:
    return {
        "correlation_id": job,
        "reply_to": secrets.token_hex(8),
        "delivery_info": {"priority": 0, "routing_key": "clasper", "exchange": "clasper"},
        "delivery_mode": 2,
        "delivery_tag": secrets.token_hex(8),
        **more,
    }


def gocelery(job: str, kwargs: Any) -> dict[str, Any]:
    return {
        "body": encoded(json.dumps(old(job, kwargs, args=None, expires=None))),
        "content-type": "application/json",
        "properties": properties(job, body_encoding="base64"),
        "content-encoding": "utf-8",
    }


def node_celery(job: str, kwargs: Any) -> dict[str, Any]:
    body = encoded(json.dumps(old(job, kwargs)))
    return {**gocelery(job, kwargs), "headers": {}, "body": body}


def celery_php(job: str, kwargs: Any) -> dict[str, Any]:
    """An empty array of PHP's is a list, and its tags are numbers."""
    made = {**gocelery(job, kwargs), "headers": [], "content-encoding": "binary"}
    return {**made, "properties": properties(job, body_encoding="base64", delivery_tag=7)}


def not_encoded(job: str, kwargs: Any) -> dict[str, Any]:
    body = json.dumps(old(job, kwargs))
    return {**gocelery(job, kwargs), "body": body, "properties": properties(job)}


def old_with_eta(job: str, kwargs: Any) -> dict[str, Any]:
    body = old(job, kwargs, eta="2020-01-01T00:00:00", expires="2999-01-01T00:00:00+00:00")
    return {**gocelery(job, kwargs), "body": encoded(json.dumps(body))}


def bare_protocol_2(job: str, kwargs: Any) -> dict[str, Any]:
    """As few headers as the protocol asks for, and no embedded part's fields."""
    return {
        **gocelery(job, kwargs),
        "headers": {"lang": "go", "task": "clasper.send", "id": job},
        "body": encoded(json.dumps([[], kwargs, {}])),
    }


SHAPES = [gocelery, node_celery, celery_php, not_encoded, old_with_eta, bare_protocol_2]


@pytest.fixture(scope="module")
def worker(processes: Processes) -> Any:
    with processes.worker("others"):
        yield processes


def put(processes: Processes, message: Any) -> None:
    with redis.Redis.from_url(processes.environment["CELERY_BROKER_URL"]) as client:
        client.lpush("clasper", json.dumps(message))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_turn_of_any_client_runs_and_its_caller_has_the_result(
    worker: Processes, shape: Any
) -> None:
    user, job = secrets.token_hex(8), secrets.token_hex(16)
    kwargs = {"user_id": user, "message": "Hello", "task_title": "T"}
    put(worker, shape(job, kwargs))
    result = worker.app.AsyncResult(job).get(timeout=60)
    assert worker.posted(user) == [result["response"]]


def test_turns_of_protocol_1_have_a_lane_and_keep_their_order(worker: Processes) -> None:
    user = secrets.token_hex(8)
    jobs = [secrets.token_hex(16) for _ in range(4)]
    for number, job in enumerate(jobs):
        kwargs = {"user_id": user, "message": f"Please note {number}.", "task_title": "T"}
        put(worker, gocelery(job, kwargs))
    replies = [worker.app.AsyncResult(job).get(timeout=60)["response"] for job in jobs]
    assert worker.posted(user) == replies


def error_of(worker: Processes, job: str) -> str:
    result = AsyncResult(job, app=worker.app)
    until(lambda: result.state == "FAILURE", "its caller is told")
    return str(result.result)


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("kind", ["application/x-python-serialize", "application/x-yaml"])
def test_what_is_not_json_is_refused_and_its_caller_told_what_to_send(
    worker: Processes, protocol: int, kind: str
) -> None:
    job = secrets.token_hex(16)
    kwargs = {"user_id": "u1", "message": "Hello", "task_title": "T"}
    body: Any = old(job, kwargs) if protocol == 1 else [[], kwargs, {}]
    message = gocelery(job, kwargs) if protocol == 1 else bare_protocol_2(job, kwargs)
    message["body"] = base64.b64encode(pickle.dumps(body)).decode()
    message |= {"content-type": kind, "content-encoding": "binary"}
    put(worker, message)
    assert "task_serializer" in error_of(worker, job)


def test_positional_arguments_are_refused_and_their_caller_told(worker: Processes) -> None:
    job = secrets.token_hex(16)
    message = gocelery(job, {})
    body = old(job, {}, args=["u1", "Hello"])
    put(worker, {**message, "body": encoded(json.dumps(body))})
    assert "positional" in error_of(worker, job)


def test_an_old_message_that_has_expired_is_not_run(worker: Processes) -> None:
    user, job = secrets.token_hex(8), secrets.token_hex(16)
    kwargs = {"user_id": user, "message": "Hello", "task_title": "T"}
    body = old(job, kwargs, expires="2020-01-01T00:00:00+00:00")
    put(worker, {**gocelery(job, kwargs), "body": encoded(json.dumps(body))})
    until(lambda: worker.app.AsyncResult(job).state == "REVOKED", "it is revoked")
    assert worker.posted(user) == []
