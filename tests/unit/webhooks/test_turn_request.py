"""Turns that the worker ends are reported before they are acknowledged."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from kombu.exceptions import OperationalError
from kombu.message import Message

from clasper_worker.settings import get_settings
from clasper_worker.tasks import ClasperTask
from clasper_worker.webhooks.outbox import WEBHOOK_QUEUE
from clasper_worker.webhooks.turn_request import TurnRequest

HOOK = {"url": "https://example.com/", "secret": "s"}
REQUEST = {"user_id": "u1", "message": "Hi", "idempotency_key": "k", "webhook": HOOK}


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app of this test's, which has our tasks: Celery shares them among apps."""
    get_settings.cache_clear()
    app = Celery("test", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_acks_late = True
    queued(app)  # the broker is this process's
    yield app
    app.close()
    get_settings.cache_clear()


def request_of(app: Celery, acknowledged: list[int], **arguments: Any) -> TurnRequest:
    """A request whose acknowledgement notes how many webhooks were queued by then."""
    message = Message(
        body=json.dumps([[], arguments, {}]),
        content_type="application/json",
        content_encoding="utf-8",
        headers={"id": "job-1", "task": "clasper.send"},
    )
    return TurnRequest(
        message,
        app=app,
        task=app.tasks["clasper.send"],
        on_ack=lambda *_: acknowledged.append(len(queued(app, keep=True))),
        on_reject=lambda *_: pytest.fail("rejected"),
    )


def queued(app: Celery, *, keep: bool = False) -> list[dict[str, Any]]:
    """The payloads on the queue of webhooks."""
    found: list[dict[str, Any]] = []
    taken: list[Message] = []
    with app.connection_for_read() as connection:
        queue = app.amqp.queues[WEBHOOK_QUEUE](connection.default_channel)
        queue.declare()
        while (message := queue.get(no_ack=not keep)) is not None:
            taken.append(message)
            found.append(json.loads(message.payload[1]["body"]))
        if keep:
            for message in taken:
                message.requeue()
    return found


def revoke(request: TurnRequest) -> None:
    request._announce_revoked("terminated", True, 15, False)


def expire(request: TurnRequest) -> None:
    request._announce_revoked("expired", False, None, True)


def hard_limit(request: TurnRequest) -> None:
    request.on_timeout(soft=False, timeout=600)


@pytest.mark.parametrize(
    ("end", "status", "code"),
    [
        (revoke, "cancelled", "cancelled"),
        (expire, "cancelled", "expired"),
        (hard_limit, "failed", "turn_timeout"),
    ],
)
def test_a_turn_that_the_worker_ends_is_reported_with_the_reason(
    app: Celery, end: Any, status: str, code: str
) -> None:
    acknowledged: list[int] = []
    end(request_of(app, acknowledged, **REQUEST))
    assert acknowledged == [1]
    (payload,) = queued(app)
    assert (payload["event"], payload["status"]) == ("agent.error", status)
    assert payload["code"] == code
    assert payload["user_id"] == "u1"
    assert payload["job_id"] == "job-1" != payload["turn_id"]


def test_a_soft_limit_is_not_the_end(app: Celery) -> None:
    acknowledged: list[int] = []
    request_of(app, acknowledged, **REQUEST).on_timeout(soft=True, timeout=300)
    assert (acknowledged, queued(app)) == ([], [])


@pytest.mark.parametrize("arguments", [{}, {"webhook": None}, {"webhook": "nonsense"}])
def test_a_turn_without_a_usable_webhook_just_ends(app: Celery, arguments: dict[str, Any]) -> None:
    acknowledged: list[int] = []
    revoke(request_of(app, acknowledged, **{**REQUEST, "webhook": None, **arguments}))
    assert (acknowledged, queued(app)) == ([0], [])


def test_a_broker_that_does_not_take_the_report_does_not_keep_the_turn_from_ending(
    app: Celery,
) -> None:
    class Unreachable(ClasperTask):
        name = "clasper.webhook"

        async def run(self, **_: object) -> None: ...

        def apply_async(self, *_: Any, **__: Any) -> Any:
            raise OperationalError("down")

    app.tasks.unregister("clasper.webhook")
    app.register_task(Unreachable())
    acknowledged: list[str] = []
    request = request_of(app, [], **REQUEST)
    request._on_ack = lambda *_: acknowledged.append("yes")
    revoke(request)
    assert acknowledged == ["yes"]
