"""Webhooks where something is not as it should be: addresses, brokers, turns that are stopped."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.integration.turn.conftest import answers, free_port
from tests.integration.turn.test_webhook import delivered, expected_delivery, receiving
from tests.waiting import until

pytestmark = pytest.mark.integration
WEBHOOKS = "clasper.webhooks"


@pytest.fixture(scope="module")
def slow_model(processes: Any) -> Iterator[dict[str, str]]:
    port = free_port()
    command = ("offline-model", "--port", str(port), "--latency", "600")
    with processes.running("slow-model", "clasper_worker", *command):
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{url}/health"), "slow model", processes.logs["slow-model"])
        yield {"OPENAI_BASE_URL": f"{url}/v1"}


def send(processes: Any, url: str, queue: str, user: str = "u1", **options: Any) -> Any:
    hook = {"url": url, "secret": "hunter2"}
    request = {"user_id": user, "message": "Hi", "task_title": "T", "webhook": hook}
    return processes.app.send_task("clasper.send", kwargs=request, queue=queue, **options)


def payloads(processes: Any) -> list[dict[str, Any]]:
    """What lies on the queue of webhooks, for no worker serves it in this test."""
    client = redis.Redis.from_url(processes.environment["CELERY_BROKER_URL"])
    bodies: list[dict[str, Any]] = []
    with processes.app.connection_for_read() as connection:
        queue = processes.app.amqp.queues[WEBHOOKS](connection.default_channel)
        while client.llen(WEBHOOKS):
            message = queue.get(no_ack=True)
            bodies.append(json.loads(message.payload[1]["body"]))
    client.close()
    return bodies


def test_loopback_is_refused_by_default_and_the_turn_succeeds(processes: Any) -> None:
    with receiving(200) as receiver, processes.worker("plain"):
        turn = send(processes, receiver.url, "clasper")
        assert turn.get(timeout=60)["status"] == "ok"
        delivery = delivered(processes, expected_delivery(receiver, turn))
    assert delivery.state == "FAILURE"
    assert type(delivery.result).__name__ == "WebhookRefusedError"
    assert "CLASPER_WEBHOOK_ALLOWED_HOSTS" in str(delivery.result)
    assert receiver.requests == []


def test_a_turn_is_kept_until_the_broker_has_taken_its_webhook(processes: Any) -> None:
    user = secrets.token_hex(8)
    client = redis.Redis.from_url(processes.environment["CELERY_BROKER_URL"])
    client.set(WEBHOOKS, "not a list: nothing can be put on this queue")
    with processes.worker("kept", "-Q", "kept") as _:
        log = processes.logs["kept"]
        turn = send(processes, "https://example.com/", "kept", user)
        until(lambda: b"webhook.not_enqueued" in log.read_bytes(), "the broker refuses", log)
        assert not turn.ready()
        client.delete(WEBHOOKS)
        result = turn.get(timeout=60)
        (payload,) = payloads(processes)
    assert payload["response"] == result["response"]
    (message,) = processes.read(user, "messages", task_id=result["task_id"])
    assert message["content"] == result["response"]
    client.close()


@pytest.mark.parametrize("pool", ["asyncio", "prefork"])
def test_a_turn_that_is_revoked_is_reported_as_cancelled(
    processes: Any, slow_model: dict[str, str], pool: str
) -> None:
    user = secrets.token_hex(8)
    options = () if pool == "asyncio" else ("-P", pool, "-c", "1")
    name = f"revoked-{pool}"
    asked = f"{slow_model['OPENAI_BASE_URL'].removesuffix('/v1')}/requests"
    before = len(processes.http.get(asked).json()["requests"])
    with processes.worker(name, *options, "-Q", name, **slow_model) as node:
        turn = send(processes, "https://example.com/", name, user)
        until(
            lambda: len(processes.http.get(asked).json()["requests"]) > before, "the model is asked"
        )
        processes.app.control.revoke(turn.id, terminate=True, destination=[node])
        turn.get(timeout=60, propagate=False)
        assert turn.state == "REVOKED"
    (payload,) = payloads(processes)
    assert (payload["event"], payload["status"]) == ("agent.error", "cancelled")
    assert (payload["code"], payload["user_id"]) == ("cancelled", user)
    assert payload["job_id"] == turn.id


def test_a_turn_past_its_hard_limit_is_reported_as_timed_out(
    processes: Any, slow_model: dict[str, str]
) -> None:
    with processes.worker("hard", "-Q", "hard", **slow_model):
        turn = send(processes, "https://example.com/", "hard", time_limit=1)
        turn.get(timeout=60, propagate=False)
    assert type(turn.result).__name__ == "TimeLimitExceeded"
    (payload,) = payloads(processes)
    assert (payload["event"], payload["code"]) == ("agent.error", "turn_timeout")


def test_a_turn_past_its_soft_limit_is_reported_as_timed_out(
    processes: Any, slow_model: dict[str, str]
) -> None:
    limits = {"CLASPER_TURN_SOFT_LIMIT_SEC": "1", "CLASPER_TURN_HARD_LIMIT_SEC": "60"}
    with processes.worker("soft", "-Q", "soft", **slow_model, **limits):
        turn = send(processes, "https://example.com/", "soft")
        turn.get(timeout=60, propagate=False)
    assert type(turn.result).__name__ == "TurnTimeoutError"
    (payload,) = payloads(processes)
    assert (payload["event"], payload["code"]) == ("agent.error", "turn_timeout")
