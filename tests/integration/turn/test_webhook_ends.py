"""Jobs that end without having run, or without having ended by themselves: each is reported."""

import json
import secrets
from typing import Any

import pytest
import redis

from clasper_worker.engine.queue.cancel import Canceller
from tests.integration.turn.test_webhook import ALLOWING, Receiver, receiving
from tests.unit.engine.queue.turns import message
from tests.waiting import until

pytestmark = [
    pytest.mark.integration,
    # Celery's result backend, with redis-py 8.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]


def request_of(receiver: Receiver, user: str, busy: str = "enqueue", **fields: Any) -> Any:
    own = {"user_id": user, "message": user, "task_title": "T", "metadata": {"busy": busy}}
    return {**own, "webhook": {"url": receiver.url}, **fields}


def asked(processes: Any, model: dict[str, str], word: str) -> int:
    url = f"{model['OPENAI_BASE_URL'].removesuffix('/v1')}/requests"
    requests = processes.http.get(url, params={"limit": "100"}).json()["requests"]
    return sum(word in json.dumps(entry) for entry in requests)


def codes(receiver: Receiver) -> list[tuple[str, str]]:
    """Which jobs were reported and how, in a certain order."""
    return sorted((payload["job_id"], payload["code"]) for payload in receiver.payloads)


def test_each_job_that_is_cancelled_rejected_or_interrupted_is_reported_once(
    processes: Any, slow_model: dict[str, str], canceller: Canceller, broker: redis.Redis
) -> None:
    user = secrets.token_hex(8)

    def send(busy: str = "enqueue", **fields: Any) -> Any:
        request = request_of(receiver, user, busy, **fields)
        return processes.app.send_task("clasper.send", kwargs=request, queue="clasper")

    with receiving(200) as receiver:
        queued = send()
        assert canceller.cancel_turn(queued.id, wait=0)[0].state == "REVOKED"
        queues = "clasper,clasper.webhooks"
        with processes.worker("ends", "-Q", queues, **slow_model, **ALLOWING):
            log = processes.logs["ends"]
            running = send()
            until(lambda: asked(processes, slow_model, user) == 1, "the model is asked", log)
            waiting, revoked = send(), send(idempotency_key="k")
            rejected = send("reject")
            until(lambda: broker.hexists("clasper:jobs", revoked.id), "they wait in the lane", log)
            assert canceller.cancel_job(waiting.id, wait=0).state == "REVOKED"
            processes.app.control.revoke(revoked.id)
            interrupting = send("interrupt")
            until(lambda: running.state == "REVOKED", "it is interrupted", log)
            until(lambda: asked(processes, slow_model, user) == 2, "the next one runs", log)
            assert canceller.cancel_job(interrupting.id, wait=60).state == "REVOKED"
            until(lambda: len(receiver.requests) == 6, "six webhooks", log)
            for job in (queued, waiting, revoked):
                assert job.state == "REVOKED"
    cancelled = [queued, running, waiting, revoked, interrupting]
    told = [*((job.id, "cancelled") for job in cancelled), (rejected.id, "session_busy")]
    assert codes(receiver) == sorted(told)
    assert len({payload["delivery_id"] for payload in receiver.payloads}) == 6
    assert {payload["event"] for payload in receiver.payloads} == {"agent.error"}


def test_a_full_lane_and_a_turn_that_lost_its_worker_each_time_are_reported(
    processes: Any, slow_model: dict[str, str], broker: redis.Redis
) -> None:
    user = secrets.token_hex(8)
    rules = {
        "CLASPER_LANE_DEPTH": "0",
        "CLASPER_VISIBILITY_TIMEOUT_SEC": "2",
        "CLASPER_MAX_DELIVERIES": "1",
    }
    environment = {**slow_model, **ALLOWING, **rules}
    command = ("celery", "-A", "clasper_worker", "worker", "-n", "mortal@test", "-Q", "mortal")

    def send() -> Any:
        request = request_of(receiver, user)
        return processes.app.send_task("clasper.send", kwargs=request, queue="mortal")

    with receiving(200) as receiver:
        with processes.running("mortal", *command, **environment) as worker:
            running = send()
            until(
                lambda: asked(processes, slow_model, user) == 1, "it runs", processes.logs["mortal"]
            )
            refused = send()
            refused.get(timeout=60, propagate=False)
            until(lambda: not broker.hexists("clasper:jobs", refused.id), "it is settled")
            worker.kill()
            worker.wait()
        with processes.worker("heir", "-Q", "mortal,clasper.webhooks", **environment):
            until(lambda: len(receiver.requests) == 2, "two webhooks", processes.logs["heir"])
            running.get(timeout=60, propagate=False)
    assert type(running.result).__name__ == "DeadLetterError"
    told = [(running.id, "dead_letter"), (refused.id, "lane_full")]
    assert codes(receiver) == sorted(told)


def test_a_message_that_celery_cannot_read_is_reported_where_its_webhook_can_be(
    processes: Any, broker: redis.Redis
) -> None:
    job = secrets.token_hex(8)
    with receiving(200) as receiver:
        request = request_of(receiver, "u1")
        broker.lpush("odd", message(job=job, headers={"eta": "tomorrow"}, **request))
        with processes.worker("odd", "-Q", "odd,clasper.webhooks", **ALLOWING):
            until(lambda: len(receiver.requests) == 1, "the webhook", processes.logs["odd"])
            processes.app.AsyncResult(job).get(timeout=60, propagate=False)
    assert codes(receiver) == [(job, "dead_letter")]
    assert processes.app.AsyncResult(job).state == "FAILURE"


def test_a_job_that_expired_before_it_was_run_is_reported(processes: Any) -> None:
    with receiving(200) as receiver:
        request = request_of(receiver, secrets.token_hex(8))
        turn = processes.app.send_task("clasper.send", kwargs=request, queue="stale", expires=0.001)
        with processes.worker("stale", "-Q", "stale,clasper.webhooks", **ALLOWING):
            until(lambda: len(receiver.requests) == 1, "the webhook", processes.logs["stale"])
    assert codes(receiver) == [(turn.id, "expired")]
