"""How messages that were run as one turn end, each by itself and together, with a real worker."""

import json
import secrets
from typing import Any

import httpx2
import pytest
import redis

from tests.integration.turn.conftest import answers, free_port
from tests.integration.turn.test_webhook import ALLOWING, receiving
from tests.waiting import until

pytestmark = [
    pytest.mark.integration,
    # Celery's result backend, with redis-py 8.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]


def send(processes: Any, user: str, queue: str, message: str, **fields: Any) -> Any:
    request = {
        "user_id": user,
        "message": message,
        "task_title": "T",
        "metadata": {"busy": "collect"},
        **fields,
    }
    return processes.app.send_task("clasper.send", kwargs=request, queue=queue)


def lie_in(processes: Any, queue: str) -> int:
    with redis.Redis.from_url(processes.environment["CELERY_BROKER_URL"]) as client:
        return int(client.llen(queue))


def test_each_key_of_a_combined_turn_gives_its_result_again_and_refuses_another_request(
    processes: Any,
) -> None:
    user, queue = secrets.token_hex(8), "combined"
    keyed = {f"Message {n}": f"k{n}" for n in range(3)}
    turns = [send(processes, user, queue, text, idempotency_key=keyed[text]) for text in keyed]
    until(lambda: lie_in(processes, queue) == 3, "all three are queued")
    with processes.worker("combined", "-Q", queue):
        first, *others = [turn.get(timeout=60) for turn in turns]
        assert others == [first, first]
        for text, key in keyed.items():
            again = send(processes, user, queue, text, idempotency_key=key)
            assert again.get(timeout=60) == first
        other = send(processes, user, queue, "Something else", idempotency_key="k2")
        other.get(timeout=60, propagate=False)
        assert type(other.result).__name__ == "TurnConflictError"
    assert processes.posted(user) == [first["response"]]


def test_a_combined_turn_that_is_stopped_ends_and_is_reported_for_all_of_it(
    processes: Any,
) -> None:
    user, queue, port = secrets.token_hex(8), "stopped", free_port()
    url = f"http://127.0.0.1:{port}"
    slow = ("clasper_worker", "offline-model", "--port", str(port), "--latency", "600")
    model = {"OPENAI_BASE_URL": f"{url}/v1"}

    def is_asked() -> bool:
        return user in json.dumps(httpx2.get(f"{url}/requests").json()["requests"])

    with receiving(200) as receiver, processes.running("very-slow", *slow):
        until(lambda: answers(f"{url}/health"), "slow model", processes.logs["very-slow"])
        hook = {"url": receiver.url}
        turns = [
            send(processes, user, queue, f"{user} {n}", webhook=hook, idempotency_key=f"k{n}")
            for n in range(3)
        ]
        until(lambda: lie_in(processes, queue) == 3, "all three are queued")
        queues = f"{queue},clasper.webhooks"
        with processes.worker("stopped", "-Q", queues, **model, **ALLOWING):
            until(is_asked, "the model is asked", processes.logs["stopped"])
            processes.app.control.revoke(turns[0].id, terminate=True)
            for turn in turns:
                turn.get(timeout=60, propagate=False)
                assert turn.state == "REVOKED"
            until(lambda: len(receiver.requests) == 3, "webhooks", processes.logs["stopped"])
    told = {(payload["job_id"], payload["code"]) for payload in receiver.payloads}
    assert told == {(turn.id, "cancelled") for turn in turns}
    assert len({payload["delivery_id"] for payload in receiver.payloads}) == 3
    assert processes.posted(user) == []


def test_a_first_message_that_cannot_be_run_does_not_take_the_others_with_it(
    processes: Any,
) -> None:
    user, queue = secrets.token_hex(8), "innocent"
    bad = send(processes, user, queue, "Hi", task_id=" ")
    good = [send(processes, user, queue, "Hi") for _ in range(2)]
    until(lambda: lie_in(processes, queue) == 3, "all three are queued")
    with processes.worker("innocent", "-Q", queue):
        results = [turn.get(timeout=60) for turn in good]
        bad.get(timeout=60, propagate=False)
    assert type(bad.result).__name__ == "InvalidRequestError"
    assert [result["status"] for result in results] == ["ok", "ok"]


def test_a_first_message_that_has_expired_does_not_take_the_others_with_it(
    processes: Any,
) -> None:
    user, queue = secrets.token_hex(8), "late"
    request = {"user_id": user, "message": "Hi", "task_title": "T", "metadata": {"busy": "collect"}}
    late = processes.app.send_task("clasper.send", kwargs=request, queue=queue, expires=0.001)
    good = [send(processes, user, queue, "Hi") for _ in range(2)]
    until(lambda: lie_in(processes, queue) == 3, "all three are queued")
    with processes.worker("late", "-Q", queue):
        results = [turn.get(timeout=60) for turn in good]
        late.get(timeout=60, propagate=False)
    assert late.state == "REVOKED"
    assert [result["status"] for result in results] == ["ok", "ok"]
