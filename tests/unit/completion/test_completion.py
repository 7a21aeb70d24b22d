"""Whoever waits for a job's end is told of it once, in order, or the job's message comes again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Reject
from redis.exceptions import ConnectionError as RedisConnectionError

from clasper_worker.completion.completion import Completion, or_again
from clasper_worker.errors import (
    ClasperError,
    DeadLetterError,
    LaneFullError,
    ModelUnavailableError,
    StateUnavailableError,
    TurnConflictError,
    TurnTimeoutError,
    WorkerLostError,
)
from clasper_worker.turn.call import TurnCall
from tests.unit.completion.conftest import HOOK, MARK, Listeners, result_of

FAILED = ModelUnavailableError("The model did not answer", {"model": "m"})
POSTED = TurnTimeoutError("Out of time", {"posted": True})


def call_of(mark: object = None, **changes: Any) -> TurnCall:
    request = {"user_id": "u1", "message": "Hi", "idempotency_key": "k", "webhook": HOOK}
    return TurnCall("job-1", {**request, **changes}, mark)


@pytest.fixture
def completion(webhook_app: Celery) -> Completion:
    return Completion(webhook_app)


async def test_a_result_is_acknowledged_first_and_then_reported_once(
    completion: Completion, listeners: Listeners
) -> None:
    await completion.succeeded(call_of(MARK), result_of())
    assert listeners.heard == ["acknowledge u1/n1", "note delivered", "enqueue agent.completed"]
    (payload,) = listeners.payloads
    assert (payload["status"], payload["response"], payload["job_id"]) == ("ok", "done", "job-1")


async def test_a_failure_is_reported_and_its_notification_is_tried_again_later(
    completion: Completion, listeners: Listeners
) -> None:
    await completion.failed(call_of(MARK), FAILED)
    assert listeners.heard == ["note failed", "enqueue agent.error"]
    (payload,) = listeners.payloads
    assert (payload["status"], payload["code"]) == ("failed", "model_unavailable")
    assert (payload["error"], payload["details"]) == (FAILED.message, {"model": "m"})


@pytest.mark.parametrize("error", [POSTED, TurnConflictError("Posted before", {"posted": True})])
async def test_a_failure_that_a_post_told_of_acknowledges_the_notification(
    completion: Completion, listeners: Listeners, error: ClasperError
) -> None:
    await completion.failed(call_of(MARK), error)
    assert listeners.heard == ["acknowledge u1/n1", "note delivered", "enqueue agent.error"]


async def test_who_does_not_wait_is_not_told(completion: Completion, listeners: Listeners) -> None:
    for call in (call_of(webhook=None), call_of({"malformed": {}}, webhook="nonsense")):
        await completion.succeeded(call, result_of())
        await completion.failed(call, FAILED)
        assert completion.stopped(call, FAILED)
        assert completion.revoked(call, "revoked")
        assert completion.dead_lettered(call, DeadLetterError("given up"))
    assert listeners.heard == []


async def test_an_acknowledgement_that_the_backend_does_not_take_is_enqueued_and_then_noted(
    completion: Completion, listeners: Listeners
) -> None:
    listeners.down = {"backend"}
    await completion.succeeded(call_of(MARK), result_of())
    assert listeners.heard == [
        "acknowledge u1/n1",
        "enqueue clasper.delivered",
        "note answered",
        "enqueue agent.completed",
    ]


@pytest.mark.parametrize("posted", [True, False])
async def test_an_acknowledgement_that_nobody_takes_has_the_message_come_again(
    completion: Completion, listeners: Listeners, posted: bool
) -> None:
    listeners.down = {"backend", "broker"}
    end = completion.succeeded(call_of(MARK), result_of())
    if posted:
        end.close()
        end = completion.failed(call_of(MARK), POSTED)
    with pytest.raises(Reject) as caught:
        await end
    assert caught.value.requeue
    # Nothing is noted of what was not enqueued, nor is the receiver told of what comes again.
    assert listeners.heard == ["acknowledge u1/n1", "enqueue clasper.delivered"]


@pytest.mark.parametrize(
    "end",
    [
        lambda completion, call: completion.succeeded(call, result_of()),
        lambda completion, call: completion.failed(call, FAILED),
    ],
)
async def test_a_webhook_that_the_broker_does_not_take_has_the_message_come_again(
    completion: Completion, listeners: Listeners, end: Callable[..., Any]
) -> None:
    listeners.down = {"broker"}
    with pytest.raises(Reject) as caught:
        await end(completion, call_of())
    assert caught.value.requeue
    assert listeners.deliveries == []
    listeners.down.clear()
    await end(completion, call_of())  # when it has come again
    assert len(listeners.deliveries) == 1


async def test_a_note_that_cannot_be_left_keeps_nobody_from_being_told(
    completion: Completion, listeners: Listeners
) -> None:
    listeners.down = {"notes"}
    await completion.succeeded(call_of(MARK), result_of())
    await completion.failed(call_of(MARK), FAILED)
    assert [payload["event"] for payload in listeners.payloads] == [
        "agent.completed",
        "agent.error",
    ]


async def test_a_fault_of_ours_is_not_taken_for_a_broker_that_is_away(
    completion: Completion, listeners: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(listeners, "deliver", broken)
    with pytest.raises(KeyError):
        await completion.succeeded(call_of(MARK), result_of())


def test_only_a_state_that_is_away_has_a_message_come_again() -> None:
    with pytest.raises(LaneFullError), or_again("x"):
        raise LaneFullError("full")
    with pytest.raises(Reject) as caught, or_again("x"):
        raise StateUnavailableError("away")
    assert caught.value.requeue


def ends_in_the_worker() -> list[Any]:
    return [
        pytest.param(lambda c, call: c.stopped(call, WorkerLostError("lost")), id="stopped"),
        pytest.param(lambda c, call: c.revoked(call, "terminated"), id="revoked"),
        pytest.param(lambda c, call: c.dead_lettered(call, DeadLetterError("x")), id="dead"),
    ]


@pytest.mark.parametrize("end", ends_in_the_worker())
def test_an_end_in_the_worker_is_published_once_as_an_error(
    completion: Completion, listeners: Listeners, end: Callable[..., bool]
) -> None:
    assert end(completion, call_of())
    assert listeners.heard == ["publish agent.error"]


@pytest.mark.parametrize("end", ends_in_the_worker())
def test_an_end_in_the_worker_says_if_the_broker_did_not_take_its_report(
    completion: Completion, listeners: Listeners, end: Callable[..., bool]
) -> None:
    listeners.down = {"broker"}
    assert end(completion, call_of()) is False


def test_a_job_that_was_revoked_or_stopped_leaves_its_notification_to_another_turn(
    completion: Completion, listeners: Listeners
) -> None:
    assert completion.revoked(call_of(MARK), "revoked")
    assert completion.stopped(call_of(MARK), WorkerLostError("lost"))
    assert listeners.heard == ["publish agent.error"] * 2


def test_nobody_is_told_of_a_dead_letter_whose_notification_would_be_dispatched_again(
    completion: Completion, listeners: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away:
        def set(self, *_: Any, **__: Any) -> None:
            listeners.heard.append("note failed")
            raise RedisConnectionError("away")

        def close(self) -> None: ...

    away = Away()
    monkeypatch.setattr(
        "clasper_worker.periodic.acknowledge.blocking_client", lambda *_, **__: away
    )
    with pytest.raises(RedisConnectionError):
        completion.dead_lettered(call_of(MARK), DeadLetterError("given up"))
    assert listeners.heard == ["note failed"]
