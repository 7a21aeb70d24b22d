"""Turns under ``-P prefork``, whose children are replaced, stopped and killed meanwhile."""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.integration.turn.json_handler import JsonHandler
from tests.integration.turn.test_webhook import ALLOWING, receiving
from tests.waiting import until

pytestmark = [
    pytest.mark.integration,
    # Celery's result backend, with redis-py 8.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]

SECONDS = 90.0  # for a turn whose child is lost: Celery looks for its answer for ten of them
HELD = "please wait"


class HeldModel:
    """A model that answers at once, but for messages with `HELD`: those when it is let go."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[str] = []
        self.free = threading.Event()

    def environment(self) -> dict[str, str]:
        return {"OPENAI_BASE_URL": f"{self.url}/v1"}

    def answer_to(self, said: str) -> dict[str, Any]:
        self.asked.append(said)
        if HELD in said:
            self.free.wait(SECONDS)
        message = {"role": "assistant", "content": f"The answer to: {said.strip()}"}
        return {
            "id": "c1",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": "held",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }


@pytest.fixture
def model() -> Iterator[HeldModel]:
    class Handler(JsonHandler):
        def do_POST(self) -> None:  # noqa: N802 - http.server's name
            said = [m["content"] for m in self.body()["messages"] if m["role"] == "user"]
            self.answer(held.answer_to(str(said[-1])))

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        held = HeldModel(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield held
        held.free.set()
        server.shutdown()


@pytest.fixture
def queue() -> str:
    return f"prefork-{secrets.token_hex(4)}"


@pytest.fixture
def user() -> str:
    return secrets.token_hex(8)


@contextmanager
def prefork(processes: Any, queue: str, model: HeldModel, *options: str, **extra: str) -> Any:
    """A worker with two children, which serves the queue alone."""
    served = f"{queue},clasper.webhooks"
    options = ("-P", "prefork", "-c", "2", "-Q", served, *options)
    with processes.worker(queue, *options, **model.environment(), **ALLOWING, **extra) as node:
        yield node


def send(processes: Any, queue: str, user: str, message: str, **options: Any) -> Any:
    webhook = options.pop("webhook", None)
    request: dict[str, Any] = {
        "user_id": user,
        "agent_role": f"r{secrets.token_hex(4)}",
        "message": message,
    }
    request |= {"task_title": "T", **({"webhook": {"url": webhook}} if webhook else {})}
    return processes.app.send_task("clasper.send", kwargs=request, queue=queue, **options)


def child_of(processes: Any, turn: Any, queue: str) -> int:
    """The process that runs it."""

    def pid() -> Any:
        return turn.state == "STARTED" and turn.info.get("pid")

    found: int = until(pid, "the turn is started", processes.logs[queue])
    return found


def answered(processes: Any, user: str, turns: list[Any]) -> None:
    """Each has its reply, and no reply was posted twice."""
    replies = [turn.get(timeout=SECONDS)["response"] for turn in turns]
    assert sorted(processes.posted(user)) == sorted(replies)


@pytest.mark.parametrize(
    "limit",
    [
        ("--max-tasks-per-child", "1"),
        pytest.param(("--max-memory-per-child", "1000"), marks=pytest.mark.minutes),
    ],
)
def test_turns_of_children_that_are_replaced_after_each_turn_are_run_and_posted_once(
    processes: Any, model: HeldModel, queue: str, user: str, limit: tuple[str, str]
) -> None:
    with prefork(processes, queue, model, *limit):
        turns = [send(processes, queue, user, f"Say {number}") for number in range(10)]
        answered(processes, user, turns)
    assert len(model.asked) == 10


def test_a_turn_that_is_revoked_with_terminate_ends_and_is_reported_and_its_childs_heir_runs_turns(
    processes: Any, model: HeldModel, queue: str, user: str
) -> None:
    with receiving(200) as receiver, prefork(processes, queue, model):
        turn = send(processes, queue, user, HELD, webhook=receiver.url)
        child = child_of(processes, turn, queue)
        until(lambda: model.asked, "the model is asked")
        processes.app.control.revoke(turn.id, terminate=True)
        until(lambda: turn.state == "REVOKED", "it is revoked", processes.logs[queue])
        until(lambda: not Path(f"/proc/{child}").exists(), "its child is gone")
        answered(processes, user, [send(processes, queue, user, f"Say {n}") for n in range(4)])
        until(lambda: receiver.payloads, "its webhook", processes.logs[queue])
    assert [(one["job_id"], one["code"]) for one in receiver.payloads] == [(turn.id, "cancelled")]


def test_a_turn_at_its_hard_limit_ends_and_is_reported_and_its_childs_heir_runs_turns(
    processes: Any, model: HeldModel, queue: str, user: str
) -> None:
    with receiving(200) as receiver, prefork(processes, queue, model):
        # Shorter than the soft limit, which Celery's prefork pool would wait for.
        turn = send(processes, queue, "late", HELD, webhook=receiver.url, time_limit=2)
        turn.get(timeout=SECONDS, propagate=False)
        assert type(turn.result).__name__ == "TimeLimitExceeded"
        answered(processes, user, [send(processes, queue, user, f"Say {n}") for n in range(4)])
        until(lambda: receiver.payloads, "its webhook", processes.logs[queue])
    assert [(one["job_id"], one["code"]) for one in receiver.payloads] == [
        (turn.id, "turn_timeout")
    ]


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.minutes),
        pytest.param(signal.SIGSEGV, marks=pytest.mark.minutes),
    ],
)
def test_a_turn_whose_child_was_killed_runs_again_and_is_posted_once(
    processes: Any, model: HeldModel, queue: str, user: str, number: signal.Signals
) -> None:
    with prefork(processes, queue, model):
        turn = send(processes, queue, user, HELD)
        child = child_of(processes, turn, queue)
        until(lambda: model.asked, "the model is asked")
        os.kill(child, number)
        until(lambda: len(model.asked) == 2, "it runs again", processes.logs[queue])
        model.free.set()
        answered(processes, user, [turn])


@pytest.mark.minutes
def test_a_turn_that_kills_its_child_each_time_becomes_a_dead_letter_and_is_reported(
    processes: Any, model: HeldModel, queue: str, user: str
) -> None:
    twice = {"CLASPER_MAX_DELIVERIES": "2"}
    with receiving(200) as receiver, prefork(processes, queue, model, **twice):
        turn = send(processes, queue, user, HELD, webhook=receiver.url)
        os.kill(first := child_of(processes, turn, queue), signal.SIGKILL)
        second = until(
            lambda: turn.state == "STARTED" and turn.info["pid"] != first and turn.info["pid"],
            "it runs again",
            processes.logs[queue],
        )
        os.kill(second, signal.SIGKILL)
        turn.get(timeout=SECONDS, propagate=False)
        assert type(turn.result).__name__ == "DeadLetterError"
        answered(processes, user, [send(processes, queue, user, "Say it")])
        until(lambda: receiver.payloads, "its webhook", processes.logs[queue])
    assert [(one["job_id"], one["code"]) for one in receiver.payloads] == [(turn.id, "dead_letter")]
