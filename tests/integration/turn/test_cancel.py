"""Turns cancelled where a real worker has them: in a lane, in the model call, in a tool."""

import json
import secrets
import threading
from http.server import ThreadingHTTPServer
from typing import Any

import pytest
import redis

from clasper_worker.engine.queue.cancel import CancelledJob, Canceller
from tests.integration.turn.json_handler import JsonHandler
from tests.waiting import until

pytestmark = [
    pytest.mark.integration,
    # Celery's result backend, with redis-py 8.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]


def send(processes: Any, user: str, queue: str, message: str = "Hi", **fields: Any) -> Any:
    request = {"user_id": user, "message": message, "task_title": "T", **fields}
    return processes.app.send_task("clasper.send", kwargs=request, queue=queue)


def is_asked(processes: Any, model: dict[str, str], word: str) -> bool:
    url = f"{model['OPENAI_BASE_URL'].removesuffix('/v1')}/requests"
    return word in json.dumps(processes.http.get(url).json()["requests"])


def test_a_turn_cancelled_before_any_worker_has_seen_it_is_revoked_and_does_not_run(
    processes: Any, canceller: Canceller
) -> None:
    user = secrets.token_hex(8)
    cancelled, other = (send(processes, user, "clasper") for _ in range(2))
    (end,) = canceller.cancel_turn(cancelled.id, wait=0)
    assert end == CancelledJob(cancelled.id, "waiting", "REVOKED")
    with processes.worker("late", "-Q", "clasper"):
        other.get(timeout=60)
        # A result is stored before its message is acknowledged, so for a moment the job runs still.
        over = (CancelledJob(other.id, "ended", "SUCCESS"),)
        until(lambda: canceller.cancel_turn(other.id, wait=0) == over, "the turn is over")
    assert cancelled.state == "REVOKED"
    assert len(processes.posted(user)) == 1


def test_turns_of_a_busy_session_are_cancelled_in_their_lane_and_in_the_model_call(
    processes: Any, slow_model: dict[str, str], canceller: Canceller, broker: redis.Redis
) -> None:
    user, word = secrets.token_hex(8), secrets.token_hex(8)
    with processes.worker("lane", "-Q", "lane", **slow_model):
        running = send(processes, user, "lane", word)
        until(
            lambda: is_asked(processes, slow_model, word),
            "the model is asked",
            processes.logs["lane"],
        )
        waiting, revoked, last = (send(processes, user, "lane") for _ in range(3))
        until(lambda: broker.hexists("clasper:jobs", last.id), "the others wait in their lane")

        (end,) = canceller.cancel_turn(waiting.id, wait=0)
        assert (end.found, end.state) == ("waiting", "REVOKED")
        processes.app.control.revoke(revoked.id)
        until(lambda: not broker.hexists("clasper:jobs", revoked.id), "it has left its lane")
        until(lambda: revoked.state == "REVOKED", "and is revoked")
        assert broker.hexists("clasper:jobs", last.id)

        (end,) = canceller.cancel_turn(running.id, wait=60)
        assert (end.found, end.state) == ("running", "REVOKED")
        until(lambda: last.state == "STARTED", "the next of the session runs")
        assert canceller.cancel_job(last.id, wait=60).state == "REVOKED"
    assert processes.posted(user) == []


def test_a_turn_cancelled_by_its_turn_id_takes_its_followers_along(
    processes: Any, slow_model: dict[str, str], canceller: Canceller, broker: redis.Redis
) -> None:
    user, word = secrets.token_hex(8), secrets.token_hex(8)
    with processes.worker("keyed", "-Q", "keyed", **slow_model):
        first = send(processes, user, "keyed", word, idempotency_key="k")
        until(
            lambda: is_asked(processes, slow_model, word),
            "the model is asked",
            processes.logs["keyed"],
        )
        second = send(processes, user, "keyed", word, idempotency_key="k")
        until(lambda: broker.hexists("clasper:jobs", second.id), "the follower is known")
        (key,) = [
            name.decode()
            for name in broker.keys("clasper:turn-jobs:*")
            if broker.sismember(name, first.id)
        ]
        ends = canceller.cancel_turn(key.removeprefix("clasper:turn-jobs:"), wait=60)
    assert {end.job_id: end.state for end in ends} == {first.id: "REVOKED", second.id: "REVOKED"}
    assert processes.posted(user) == []


class SlowBackend(ThreadingHTTPServer):
    """A Mission Control with one task, which takes for ever to make another."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.is_in_tool = threading.Event()
        self.stopped = threading.Event()
        self.messages: list[Any] = []


class _Handler(JsonHandler):
    server: SlowBackend

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
        items = [{"id": "t", "title": "T", "status": "in_progress"}]
        features = {"tasks": True, "messages": True}
        self.answer({"items": items, "contract_version": "v1", "features": features})

    def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
        body = self.body()
        if self.path.endswith("/tasks"):
            self.server.is_in_tool.set()
            self.server.stopped.wait()
        else:
            self.server.messages.append(body)
        self.answer({"id": "m", "title": "x", "status": "x", "task_id": "t", "content": "x"})


def test_a_turn_cancelled_in_the_middle_of_a_tool_is_stopped_there(
    processes: Any, canceller: Canceller
) -> None:
    with SlowBackend() as backend:
        thread = threading.Thread(target=backend.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        address = {"BACKEND_URL": f"http://127.0.0.1:{backend.server_port}"}
        try:
            with processes.worker("tool", "-Q", "tool", **address):
                turn = send(processes, "u1", "tool", 'Create a task called "Launch"')
                assert backend.is_in_tool.wait(60)
                (end,) = canceller.cancel_turn(turn.id, wait=60)
        finally:
            backend.stopped.set()
            backend.shutdown()
            thread.join()
    assert (end.found, end.state) == ("running", "REVOKED")
    assert backend.messages == []
