"""Turns that take too long, are cancelled, or are many: with a model that takes its time."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from celery.exceptions import TaskRevokedError

from clasper_worker.turn.run import TIMED_OUT_TEXT
from tests.integration.turn.conftest import answers, free_port
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def slow_model(processes: Any) -> Iterator[dict[str, str]]:
    """Variables that point a worker at a model which never answers in time."""
    port = free_port()
    latency = ("--latency", "600")
    with processes.running(
        "slow-model", "clasper_worker", "offline-model", "--port", str(port), *latency
    ):
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{url}/health"), "slow model", processes.logs["slow-model"])
        yield {"OPENAI_BASE_URL": f"{url}/v1"}


def send(processes: Any, queue: str, user: str, **options: Any) -> Any:
    request = {"user_id": user, "message": "Hi", "task_title": "T"}
    return processes.app.send_task("clasper.send", kwargs=request, queue=queue, **options)


@pytest.mark.parametrize("pool", ["asyncio", "prefork"])
def test_at_the_soft_limit_the_turn_says_so_in_its_task_and_fails(
    processes: Any, slow_model: dict[str, str], pool: str
) -> None:
    user = secrets.token_hex(8)
    limits = {"CLASPER_TURN_SOFT_LIMIT_SEC": "3", "CLASPER_TURN_HARD_LIMIT_SEC": "30"}
    options = () if pool == "asyncio" else ("-P", pool, "-c", "1")
    with processes.worker(f"soft-{pool}", *options, "-Q", f"soft-{pool}", **slow_model, **limits):
        turn = send(processes, f"soft-{pool}", user)
        turn.get(timeout=60, propagate=False)
    assert turn.state == "FAILURE"
    assert type(turn.result).__name__ == "TurnTimeoutError"
    assert processes.posted(user) == [TIMED_OUT_TEXT]


def test_at_the_hard_limit_the_turn_is_stopped_and_posts_nothing(
    processes: Any, slow_model: dict[str, str]
) -> None:
    user = secrets.token_hex(8)
    with processes.worker("hard", "-Q", "hard", **slow_model):
        turn = send(processes, "hard", user, time_limit=1)
        turn.get(timeout=60, propagate=False)
    assert turn.state == "FAILURE"
    assert type(turn.result).__name__ == "TimeLimitExceeded"
    assert processes.posted(user) == []


def test_a_turn_revoked_with_terminate_is_stopped_in_the_middle_of_the_model_call(
    processes: Any, slow_model: dict[str, str]
) -> None:
    user = secrets.token_hex(8)
    with processes.worker("revoke", "-Q", "revoke", **slow_model) as node:
        turn = send(processes, "revoke", user)
        asked = f"{slow_model['OPENAI_BASE_URL'].removesuffix('/v1')}/requests"
        until(lambda: processes.http.get(asked).json()["requests"] != [], "the model is asked")
        processes.app.control.revoke(turn.id, terminate=True, destination=[node])
        with pytest.raises(TaskRevokedError):
            turn.get(timeout=60)
    assert turn.state == "REVOKED"
    assert processes.posted(user) == []


def test_one_process_holds_hundreds_of_turns_at_once_and_never_more_than_c(
    processes: Any, slow_model: dict[str, str]
) -> None:
    limit = 300
    with processes.worker("many", "-Q", "many", "-c", str(limit), **slow_model) as node:
        inspect = processes.app.control.inspect([node], timeout=5)
        turns = [send(processes, "many", f"many-{number}") for number in range(limit + 50)]

        def in_flight() -> int:
            running: int = inspect.stats()[node]["pool"]["in-flight"]
            assert running <= limit
            return running

        until(lambda: in_flight() == limit, "the pool is full")
        assert len(inspect.active()[node]) == limit
        ids = [turn.id for turn in turns]
        processes.app.control.revoke(ids, terminate=True, destination=[node])
        until(lambda: in_flight() == 0, "the pool is empty")
