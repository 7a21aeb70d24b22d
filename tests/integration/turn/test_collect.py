"""Turns of a busy session that are run as one, by a real worker."""

import secrets
from typing import Any

import pytest

pytestmark = [
    pytest.mark.integration,
    # Celery's result backend, with redis-py 8.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]


def send(processes: Any, user: str, message: str, **fields: Any) -> Any:
    request = {"user_id": user, "message": message, "task_title": "T", **fields}
    return processes.app.send_task(
        "clasper.send", kwargs={**request, "metadata": {"busy": "collect"}}, queue="clasper"
    )


def test_waiting_turns_run_as_one_and_a_turn_that_is_over_takes_none_with_it(
    processes: Any,
) -> None:
    user = secrets.token_hex(8)
    with processes.worker("first", "-Q", "clasper"):
        over = send(processes, user, "Over", idempotency_key="over").get(timeout=60)
    again = send(processes, user, "Over", idempotency_key="over")
    one = send(processes, user, "One", idempotency_key="one")
    same = send(processes, user, "One", idempotency_key="one")
    two = send(processes, user, "Two", idempotency_key="two")
    with processes.worker("second", "-Q", "clasper"):
        assert again.get(timeout=60)["response"] == over["response"]
        joint = one.get(timeout=60)
        assert joint["turn_id"] != over["turn_id"]
        assert same.get(timeout=60) == two.get(timeout=60) == joint
        # Each key has had its result.
        assert send(processes, user, "Two", idempotency_key="two").get(timeout=60) == joint
    (task,) = processes.read(user, "tasks")
    messages = processes.read(user, "messages", task_id=task["id"])
    assert [message["content"] for message in messages] == [over["response"], joint["response"]]
