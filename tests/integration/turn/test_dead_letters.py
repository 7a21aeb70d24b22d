"""Turns that kill their worker or fail for good: with the dead letters, and again from there."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from clasper_worker.config.settings import Settings
from clasper_worker.engine.queue.dead_letters import DeadLetter, DeadLetters
from clasper_worker.engine.queue.scheduler import open_schedule
from tests.integration.turn.conftest import answers, free_port
from tests.waiting import until

pytestmark = [
    pytest.mark.integration,
    # Celery's result backend, with redis-py 8.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]

QUICKLY = {"CLASPER_VISIBILITY_TIMEOUT_SEC": "2", "CLASPER_MAX_DELIVERIES": "2"}


@pytest.fixture
def letters(processes: Any) -> Iterator[DeadLetters]:
    settings = Settings(
        _env_file=None, celery_broker_url=processes.environment["CELERY_BROKER_URL"]
    )
    schedule = open_schedule(settings)
    assert schedule is not None
    yield DeadLetters(schedule, processes.app)
    schedule.close()


def send(processes: Any, queue: str, **fields: Any) -> Any:
    request = {"task_title": "T", **fields}
    return processes.app.send_task("clasper.send", kwargs=request, queue=queue)


def letter_of(letters: DeadLetters, job: str) -> DeadLetter | None:
    return next((letter for letter in letters.newest(100) if letter.job_id == job), None)


def outcome_after_replay(processes: Any, job: str) -> Any:
    """What the job's new run comes to, read from what is stored.

    Not with ``get``: Celery's client may have the failure that went before yet to read from its
    subscription, and would take it for the new outcome.
    """
    result = processes.app.AsyncResult(job)
    until(result.ready, "its new run ends")
    return result.get(timeout=60)


def test_a_turn_that_kills_its_worker_each_time_ends_as_a_dead_letter_and_can_be_replayed(
    processes: Any, letters: DeadLetters
) -> None:
    user, port = secrets.token_hex(8), free_port()
    url = f"http://127.0.0.1:{port}"
    slow = ("clasper_worker", "offline-model", "--port", str(port), "--latency", "600")
    model = {"OPENAI_BASE_URL": f"{url}/v1"}
    command = ("celery", "-A", "clasper_worker", "worker", "-n", "poisoned@test", "-Q", "poison")

    def asked() -> int:
        requests = processes.http.get(f"{url}/requests", params={"limit": "100"}).json()["requests"]
        return sum(user in json.dumps(entry) for entry in requests)

    turn = send(processes, "poison", user_id=user, message=f"Note {user}")
    with processes.running("slow", *slow):
        until(lambda: answers(f"{url}/health"), "slow model", processes.logs["slow"])
        for death in range(1, 3):
            with processes.running("poisoned", *command, **model, **QUICKLY) as worker:
                log = processes.logs["poisoned"]
                until(lambda death=death: asked() == death, f"{death} deliveries", log)  # type: ignore[misc]
                worker.kill()
                worker.wait()
        with processes.worker("healthy", "-Q", "poison", **QUICKLY):
            turn.get(timeout=60, propagate=False)
            assert (turn.state, type(turn.result).__name__) == ("FAILURE", "DeadLetterError")
            assert asked() == 2
            letter = letter_of(letters, turn.id)
            assert letter is not None
            assert (letter.user_id, letter.attempts) == (user, 2)
            assert "lost its worker" in letter.reason

            assert letters.replay(letter.letter_id) == "replayed"
            result = outcome_after_replay(processes, turn.id)
    (message,) = processes.read(user, "messages", task_id=result["task_id"])
    assert message["content"] == result["response"]
    assert letter_of(letters, turn.id) is None


def test_turns_that_fail_for_good_are_kept_with_the_reason_and_complete_once_it_is_mended(
    processes: Any, letters: DeadLetters
) -> None:
    user = secrets.token_hex(8)
    with processes.worker("bare", "-Q", "mend", AGENT_JWT_SECRET=""):
        turn = send(processes, "mend", user_id=user, message="Hi")
        bad = send(processes, "mend", user_id=user, message="")
        for one in (turn, bad):
            one.get(timeout=60, propagate=False)
            # The failure is stored before the message is settled.
            until(lambda one=one: letter_of(letters, one.id) is not None, "a dead letter")  # type: ignore[misc]
        assert type(turn.result).__name__ == "ConfigurationError"
    found, refused = letter_of(letters, turn.id), letter_of(letters, bad.id)
    assert found is not None
    assert found.reason.startswith("configuration: ")
    assert refused is not None
    assert refused.reason.startswith("invalid_request: ")
    with processes.worker("mended", "-Q", "mend"):
        letters.replay(found.letter_id)
        result = outcome_after_replay(processes, turn.id)
    (message,) = processes.read(user, "messages", task_id=result["task_id"])
    assert message["content"] == result["response"]
