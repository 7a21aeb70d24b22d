"""What a webhook says, and of which turn."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from clasper_worker.engine.queue.identity import turn_id_for
from clasper_worker.errors import InvalidRequestError, ModelUnavailableError, TurnConflictError
from clasper_worker.llm.cost import Usage, turn_cost
from clasper_worker.turn.call import TurnCall
from clasper_worker.turn.models import TurnResult
from clasper_worker.webhooks import payload as payloads
from clasper_worker.webhooks.payload import Delivery, Failure

AT = datetime(2026, 2, 1, 20, 20, 0, 5000, tzinfo=timezone(timedelta(hours=1)))
HOOK = {"url": "https://example.com/hook?key=hunter2", "secret": "hunter2"}
REQUEST = {"user_id": "u1", "agent_role": "writer", "message": "Hi", "webhook": HOOK}


def turn_of(job_id: str = "job-1", **changes: Any) -> TurnCall:
    return TurnCall(job_id, {**REQUEST, **changes})


def completed(call: TurnCall, result: TurnResult, **when: Any) -> Delivery:
    delivery = payloads.completed(call, result, **when)
    assert delivery is not None
    return delivery


def failed(call: TurnCall, failure: Failure, **when: Any) -> Delivery:
    delivery = payloads.failed(call, failure, **when)
    assert delivery is not None
    return delivery


def result_of(call: TurnCall) -> TurnResult:
    return TurnResult(
        turn_id=call.identity.turn_id,
        task_id="task-1",
        trace_id="f" * 32,
        response="Grüße \ud83d",
        usage=Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3),
        cost=turn_cost(()),
        tool_calls=0,
    )


def test_completion_carries_the_result_and_who_it_is_about() -> None:
    turn = turn_of(idempotency_key="k")
    delivery = completed(turn, result_of(turn), at=AT)
    payload = json.loads(delivery.body)
    result = result_of(turn).as_json()
    assert payload == {
        **result,
        "event": "agent.completed",
        "delivery_id": delivery.delivery_id,
        "timestamp": "2026-02-01T19:20:00.005Z",
        "turn_id": turn_id_for("u1", "k", "job-1"),
        "job_id": "job-1",
        "task_id": "task-1",
        "user_id": "u1",
        "session_key": "user:u1:writer",
        "role": "writer",
        "status": "ok",
        "response": "Grüße \ud83d",
    }


def test_failure_carries_the_typed_error() -> None:
    error = ModelUnavailableError("The model did not answer", {"model": "m", "status": 503})
    delivery = failed(turn_of(task_id="t"), Failure.of(error), at=AT)
    payload = json.loads(delivery.body)
    assert payload["event"] == delivery.event == "agent.error"
    assert (payload["status"], payload["task_id"]) == ("failed", "t")
    assert (payload["error"], payload["code"]) == ("The model did not answer", "model_unavailable")
    assert payload["details"] == {"model": "m", "status": 503}


def test_another_run_of_the_turn_makes_the_same_delivery() -> None:
    one, two = (turn_of(job, idempotency_key="k") for job in ("job-1", "job-2"))
    ids = {completed(turn, result_of(turn)).delivery_id for turn in (one, two)}
    assert len(ids) == 1


def test_other_turns_users_and_ends_are_other_deliveries() -> None:
    plain = turn_of()
    error = Failure("No", "model")
    deliveries = [
        completed(plain, result_of(plain)),
        failed(plain, error),
        failed(turn_of("job-2"), error),
        failed(turn_of(user_id="u2"), error),
    ]
    assert len({delivery.delivery_id for delivery in deliveries}) == len(deliveries)


def test_a_conflict_is_not_taken_for_the_turns_own_failure() -> None:
    one, two = (turn_of(job, idempotency_key="k") for job in ("job-1", "job-2"))
    conflict = Failure.of(TurnConflictError("Used before"))
    own = failed(one, Failure("No", "model"))
    assert len({own.delivery_id, *(failed(t, conflict).delivery_id for t in (one, two))}) == 3


def test_one_that_was_part_of_anothers_turn_has_the_result_under_its_own_turns_id() -> None:
    member = turn_of("job-2", idempotency_key="l")
    delivery = completed(member, result_of(turn_of(idempotency_key="k")))
    assert json.loads(delivery.body)["turn_id"] == delivery.turn_id == member.identity.turn_id


def test_a_turn_without_a_webhook_is_not_reported() -> None:
    call = turn_of(webhook=None)
    assert payloads.completed(call, result_of(call)) is None
    assert payloads.failed(call, Failure("No", "x")) is None


def test_of_a_request_that_cannot_be_run_only_what_is_safe_to_say_is_said() -> None:
    turn = failed(turn_of(message="", idempotency_key="k"), Failure("No", "x"))
    assert (turn.turn_id, turn.user_id) == ("job-1", "u1")
    odd = failed(
        TurnCall("job-1", {"webhook": HOOK, "user_id": 5, "task_id": "a\nb"}), Failure("No", "x")
    )
    assert (odd.user_id, json.loads(odd.body)["task_id"]) == (None, None)


@pytest.mark.parametrize(
    ("reason", "code"),
    [("revoked", "cancelled"), ("terminated", "cancelled"), ("expired", "expired")],
)
def test_a_job_that_is_revoked_is_cancelled_or_expired_and_not_its_turns_end(
    reason: str, code: str
) -> None:
    failure = Failure.of_revoked(reason)
    payload = json.loads(failed(turn_of(), failure).body)
    assert (payload["status"], payload["code"]) == ("cancelled", code)
    assert payload["details"] == {"reason": reason}
    assert failure.of_the_job


def test_a_delivery_comes_through_the_broker_whole_and_shows_no_secret() -> None:
    turn = turn_of(webhook={**HOOK, "headers": {"Authorization": "hunter2"}})
    delivery = completed(turn, result_of(turn), at=AT)
    arguments = json.loads(json.dumps(delivery.as_arguments()))
    again = Delivery.parse(arguments)
    assert again == delivery
    assert again.body.encode("ascii") == delivery.body.encode("ascii")
    assert again.webhook.secret is not None
    assert again.webhook.secret.get_secret_value() == "hunter2"
    assert "hunter2" not in f"{delivery!r} {turn!r}"


def test_a_bad_delivery_names_the_field_and_shows_no_value() -> None:
    turn = turn_of()
    arguments = completed(turn, result_of(turn)).as_arguments()
    bad = {**arguments, "event": "hunter2", "webhook": {"url": "ftp://hunter2"}, "more": "hunter2"}
    with pytest.raises(InvalidRequestError) as caught:
        Delivery.parse(bad)
    fields = [field["field"] for field in caught.value.details["fields"]]
    assert fields == ["event", "webhook.url", "more"]
    assert "hunter2" not in f"{caught.value} {caught.value.details}"


def test_the_time_is_now_unless_given() -> None:
    payload = json.loads(failed(turn_of(), Failure("No", "x")).body)
    age = datetime.now(UTC) - datetime.fromisoformat(payload["timestamp"])
    assert timedelta(seconds=-1) < age < timedelta(minutes=5)
