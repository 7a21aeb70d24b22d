"""``clasper.send`` through a real broker, a real worker process and a real backend process."""

import json
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def worker(processes: Any) -> Iterator[str]:
    with processes.worker() as node:
        yield node


def send(processes: Any, job: str | None = None, **fields: Any) -> Any:
    request = {"user_id": "u1", "task_title": "Thread", **fields}
    return processes.app.send_task("clasper.send", kwargs=request, queue="clasper", task_id=job)


def test_a_plain_celery_app_gets_the_reply_that_lies_in_the_backend(
    processes: Any, worker: str
) -> None:
    word = secrets.token_hex(8)
    turn = send(processes, user_id=word, message=f"Please note {word}.")
    result = turn.get(timeout=60)
    assert result["status"] == "ok"
    assert result["turn_id"] == turn.id
    assert word in result["response"]
    (message,) = processes.read(word, "messages", task_id=result["task_id"])
    assert message["content"] == result["response"]
    sent = processes.http.get(f"{processes.model_url}/requests").json()["requests"]
    assert any(word in json.dumps(entry["body"]) for entry in sent)


def test_the_agent_acts_on_the_backend_by_tools(processes: Any, worker: str) -> None:
    word = secrets.token_hex(8)
    turn = send(processes, user_id=word, message=f'Create a task called "Buy {word}"')
    assert turn.get(timeout=60)["tool_calls"] == 1
    titles = [task["title"] for task in processes.read(word, "tasks")]
    assert titles == ["Thread", f"Buy {word}"]


def test_turns_that_want_the_same_new_title_at_once_make_one_task(
    processes: Any, worker: str
) -> None:
    user = secrets.token_hex(8)
    turns = [send(processes, user_id=user, task_title="Same", message="Hi") for _ in range(20)]
    tasks = {turn.get(timeout=60)["task_id"] for turn in turns}
    assert len(tasks) == 1
    (task,) = processes.read(user, "tasks")
    assert len(processes.read(user, "messages", task_id=task["id"])) == 20


def test_a_turn_of_the_same_idempotency_key_runs_once_and_another_request_conflicts(
    processes: Any, worker: str
) -> None:
    user = secrets.token_hex(8)
    keyed = {"user_id": user, "idempotency_key": "k"}
    one, two = (send(processes, **keyed, message="Hi").get(timeout=60) for _ in range(2))
    assert one["turn_id"] == two["turn_id"]
    assert one["response"] == two["response"]
    (message,) = processes.read(user, "messages", task_id=one["task_id"])
    assert message["content"] == one["response"]
    other = send(processes, **keyed, message="Something else")
    other.get(timeout=60, propagate=False)
    assert type(other.result).__name__ == "TurnConflictError"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"message": ""}, "InvalidRequestError"),
        ({"message": "Hi", "agent_role": "../x"}, "InvalidRequestError"),
        ({"message": "Hi", "task_id": "nobodys"}, "BackendNotFoundError"),
    ],
)
def test_a_turn_that_fails_ends_in_failure_with_a_typed_error(
    processes: Any, worker: str, fields: dict[str, Any], code: str
) -> None:
    turn = send(processes, **fields)
    turn.get(timeout=60, propagate=False)
    assert turn.state == "FAILURE"
    assert type(turn.result).__name__ == code


def test_what_is_said_shows_in_no_event_and_no_log(processes: Any, worker: str) -> None:
    word, job = f"private{secrets.token_hex(8)}", secrets.token_hex(8)
    events: list[dict[str, Any]] = []
    listening = threading.Event()
    ended = threading.Event()  # the turns of other tests end too

    def record(event: dict[str, Any]) -> None:
        events.append(event)
        if event["type"] == "task-succeeded" and event.get("uuid") == job:
            ended.set()

    def listen() -> None:
        with processes.app.connection() as connection:
            receiver = processes.app.events.Receiver(connection, handlers={"*": record})
            consumer = receiver.itercapture(limit=None, timeout=30, wakeup=True)
            listening.set()
            for _ in consumer:
                if ended.is_set():
                    return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    listening.wait()
    # The receiver subscribes on its first step: an event of the worker's shows that it has.
    _until_heard(processes, events)
    turn = send(processes, job, message=f"Remember {word}", idempotency_key=word)
    assert word in turn.get(timeout=60)["response"]
    assert ended.wait(timeout=30)
    own = [event for event in events if event.get("uuid") == turn.id]
    assert {"task-received", "task-started", "task-succeeded"} <= {event["type"] for event in own}
    assert word not in json.dumps(own)
    assert "u1" in json.dumps(own)
    assert word not in processes.logs["worker"].read_text()


def _until_heard(processes: Any, events: list[dict[str, Any]]) -> None:
    for _ in range(60):
        send(processes, message="").get(timeout=60, propagate=False)
        if events:
            return
    pytest.fail("the worker sends no events")


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_the_same_turn_runs_under_each_of_celerys_pools(processes: Any, pool: str) -> None:
    with processes.worker(pool, "-P", pool, "-c", "2", "-Q", f"q-{pool}") as node:
        stats = processes.app.control.inspect([node], timeout=5).stats()[node]
        assert pool.removesuffix("s") in stats["pool"]["implementation"]
        request = {"user_id": pool, "message": "Hi", "task_title": "T"}
        turn = processes.app.send_task("clasper.send", kwargs=request, queue=f"q-{pool}")
        result = turn.get(timeout=60)
    (message,) = processes.read(pool, "messages", task_id=result["task_id"])
    assert message["content"] == result["response"]


def test_a_worker_without_a_secret_fails_turns_with_the_variable_to_set(processes: Any) -> None:
    with processes.worker("bare", "-Q", "q-bare", AGENT_JWT_SECRET=""):
        request = {"user_id": "u1", "message": "Hi", "task_title": "T"}
        turn = processes.app.send_task("clasper.send", kwargs=request, queue="q-bare")
        turn.get(timeout=60, propagate=False)
        assert "AGENT_JWT_SECRET" in str(turn.result)


def test_a_worker_whose_workspace_is_missing_says_how_to_make_one(processes: Any) -> None:
    with processes.worker("lost", "-Q", "q-lost", CLASPER_WORKSPACE="/nowhere/at/all"):
        request = {"user_id": "u1", "message": "Hi", "task_title": "T"}
        turn = processes.app.send_task("clasper.send", kwargs=request, queue="q-lost")
        turn.get(timeout=60, propagate=False)
        assert "CLASPER_WORKSPACE" in str(turn.result)
        assert "clasper init" in str(turn.result)
