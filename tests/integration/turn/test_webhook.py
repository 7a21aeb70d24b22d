"""Webhooks through a real broker and worker, to a real HTTP server."""

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from clasper_worker.turn.call import TurnCall
from clasper_worker.turn.models import TurnResult
from clasper_worker.webhooks.payload import completed
from clasper_worker.webhooks.signature import verify_signature
from tests.waiting import until

pytestmark = pytest.mark.integration

ALLOWING = {
    "CLASPER_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
    "CLASPER_WEBHOOK_ATTEMPTS": "3",
    "CLASPER_WEBHOOK_BACKOFF_SEC": "0.2",
}


@dataclass
class Receiver:
    """What was received, and what is answered: the given statuses in turn, the last for ever."""

    statuses: list[int]
    port: int = 0
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?key=hunter2"

    @property
    def payloads(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.requests]


@contextmanager
def receiving(*statuses: int) -> Iterator[Receiver]:
    receiver = Receiver(list(statuses))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.requests.append((dict(self.headers), body))
            left = receiver.statuses
            self.send_response(left.pop(0) if len(left) > 1 else left[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def worker(processes: Any) -> Iterator[str]:
    with processes.worker("hooks", **ALLOWING) as node:
        yield node


def send(processes: Any, receiver: Receiver, queue: str = "clasper", **fields: Any) -> Any:
    hook = {"url": receiver.url, "secret": "hunter2", "headers": {"X-Tenant": "hunter2"}}
    request = {"user_id": "u1", "message": "Hi", "task_title": "T", "webhook": hook, **fields}
    return processes.app.send_task("clasper.send", kwargs=request, queue=queue)


@contextmanager
def listening(processes: Any, events: list[dict[str, Any]]) -> Iterator[None]:
    """Record the workers' events."""
    ended, heard = threading.Event(), threading.Event()

    def record(event: dict[str, Any]) -> None:
        events.append(event)
        heard.set()

    def listen() -> None:
        with processes.app.connection() as connection:
            receiver = processes.app.events.Receiver(connection, handlers={"*": record})
            for _ in receiver.itercapture(limit=None, timeout=60, wakeup=True):
                if ended.is_set():
                    return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    assert heard.wait(60)  # a heartbeat: the receiver has subscribed
    try:
        yield
    finally:
        ended.set()


def delivered(processes: Any, delivery_id: str) -> Any:
    result = processes.app.AsyncResult(delivery_id)
    result.get(timeout=60, propagate=False)
    return result


def test_completion_is_delivered_at_the_third_attempt_signed_and_unchanged(
    processes: Any, worker: str
) -> None:
    events: list[dict[str, Any]] = []
    with receiving(500, 500, 200) as receiver, listening(processes, events):
        turn = send(processes, receiver)
        result = turn.get(timeout=60)
        until(lambda: len(receiver.requests) == 3, "three attempts", processes.logs["hooks"])
        delivery = delivered(processes, receiver.payloads[0]["delivery_id"])
        assert delivery.result == {"status": "delivered", "http_status": 200, "attempts": 3}
        until(
            lambda: any(
                event["type"] == "task-succeeded" and event["uuid"] == delivery.id
                for event in events
            ),
            "the delivery's last event",
        )
    assert len({body for _, body in receiver.requests}) == 1
    for headers, body in receiver.requests:
        assert verify_signature("hunter2", body, headers["X-Clasper-Signature"])
        assert not verify_signature("another", body, headers["X-Clasper-Signature"])
        assert headers["X-Clasper-Delivery"] == delivery.id
        assert headers["X-Clasper-Event"] == "agent.completed"
        assert headers["X-Tenant"] == "hunter2"
    payload = receiver.payloads[0]
    assert payload["event"] == "agent.completed"
    assert {name: payload[name] for name in result} == result
    assert (payload["user_id"], payload["session_key"]) == ("u1", "user:u1:default")
    own = [event for event in events if event.get("uuid") in {turn.id, delivery.id}]
    # The retry's message is sent by the worker, which sends events of that too.
    assert {"task-sent", "task-received", "task-retried"} <= {event["type"] for event in own}
    assert "hunter2" not in json.dumps(events)
    assert "hunter2" not in processes.logs["hooks"].read_text()


def test_a_failure_is_reported_with_its_typed_error(processes: Any, worker: str) -> None:
    with receiving(204) as receiver:
        turn = send(processes, receiver, task_id="nobodys")
        turn.get(timeout=60, propagate=False)
        assert turn.state == "FAILURE"
        until(lambda: receiver.requests != [], "the webhook", processes.logs["hooks"])
    (payload,) = receiver.payloads
    assert (payload["event"], payload["status"]) == ("agent.error", "failed")
    assert (payload["code"], payload["task_id"]) == ("backend_not_found", "nobodys")
    assert payload["turn_id"] == payload["job_id"] == turn.id
    assert payload["error"] == str(turn.result)


def test_a_request_that_cannot_be_run_is_reported_too(processes: Any, worker: str) -> None:
    with receiving(200) as receiver:
        turn = send(processes, receiver, message="")
        turn.get(timeout=60, propagate=False)
        until(lambda: receiver.requests != [], "the webhook", processes.logs["hooks"])
    assert [payload["code"] for payload in receiver.payloads] == ["invalid_request"]


def test_after_the_last_attempt_the_delivery_fails_with_a_typed_error(
    processes: Any, worker: str
) -> None:
    with receiving(503) as receiver:
        send(processes, receiver).get(timeout=60)
        until(lambda: len(receiver.requests) == 3, "three attempts", processes.logs["hooks"])
        delivery = delivered(processes, receiver.payloads[0]["delivery_id"])
    assert delivery.state == "FAILURE"
    assert type(delivery.result).__name__ == "WebhookUnavailableError"
    assert "hunter2" not in f"{delivery.result!r} {delivery.traceback}"
    assert len(receiver.requests) == 3


def test_an_answer_that_no_attempt_would_mend_fails_at_once(processes: Any, worker: str) -> None:
    with receiving(410) as receiver:
        send(processes, receiver).get(timeout=60)
        until(lambda: receiver.requests != [], "an attempt", processes.logs["hooks"])
        delivery = delivered(processes, receiver.payloads[0]["delivery_id"])
    assert type(delivery.result).__name__ == "WebhookRejectedError"
    assert len(receiver.requests) == 1


def test_every_run_of_a_turn_makes_the_same_delivery(processes: Any, worker: str) -> None:
    key = secrets.token_hex(8)
    with receiving(200) as receiver:
        for _ in range(2):
            send(processes, receiver, idempotency_key=key).get(timeout=60)
        until(lambda: len(receiver.requests) == 2, "two webhooks", processes.logs["hooks"])
    assert len({payload["delivery_id"] for payload in receiver.payloads}) == 1
    assert len({payload["response"] for payload in receiver.payloads}) == 1


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_webhooks_are_enqueued_and_retried_under_celerys_own_pools(
    processes: Any, worker: str, pool: str
) -> None:
    # The webhook may be delivered by either worker: each attempt by whichever takes it.
    queues = f"hook-{pool},clasper.webhooks"
    with (
        processes.worker(f"hook-{pool}", "-P", pool, "-c", "2", "-Q", queues, **ALLOWING),
        receiving(500, 200) as receiver,
    ):
        send(processes, receiver, f"hook-{pool}").get(timeout=60)
        log = processes.logs[f"hook-{pool}"]
        until(lambda: len(receiver.requests) == 2, "two attempts", log)
        delivery = delivered(processes, receiver.payloads[0]["delivery_id"])
        assert delivery.state == "SUCCESS"


def expected_delivery(receiver: Receiver, turn: Any) -> str:
    """The id of the delivery that a turn's completion makes."""
    arguments = {"user_id": "u1", "message": "Hi", "webhook": {"url": receiver.url}}
    delivery = completed(TurnCall(turn.id, arguments), TurnResult.from_json(turn.result))
    assert delivery is not None
    return delivery.delivery_id


def test_the_delivery_id_follows_from_the_turn(processes: Any, worker: str) -> None:
    with receiving(200) as receiver:
        turn = send(processes, receiver)
        turn.get(timeout=60)
        delivery = delivered(processes, expected_delivery(receiver, turn))
    assert delivery.state == "SUCCESS"
    assert [payload["delivery_id"] for payload in receiver.payloads] == [delivery.id]
