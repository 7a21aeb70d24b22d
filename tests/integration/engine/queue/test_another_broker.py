"""A broker that is not Redis: kombu's folder of files, with a Redis for results and our state."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult

from tests.chaos.workers import Nursery
from tests.integration.turn.conftest import Processes, run_processes
from tests.waiting import until

pytestmark = [
    pytest.mark.integration,
    # Celery's result backend, with redis-py 8.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]


@pytest.fixture
def processes(tmp_path: Path, nursery: Nursery) -> Iterator[Processes]:
    for found in run_processes(tmp_path, nursery):
        redis_url = found.environment["CELERY_BROKER_URL"]
        environment = {
            **found.environment,
            "CELERY_BROKER_URL": "filesystem://",
            "CELERY_RESULT_BACKEND": redis_url,
            "CLASPER_REDIS_URL": redis_url,
        }
        # kombu's names in the folder where each process runs; one side's way in, the other's out.
        queue = tmp_path / "data_in"
        queue.mkdir()
        (tmp_path / "data_out").symlink_to(queue)
        app = Celery("my_backend", broker="filesystem://", backend=redis_url, set_as_current=False)
        app.conf.broker_transport_options = {
            "data_folder_in": str(queue),
            "data_folder_out": str(queue),
            "control_folder": str(tmp_path / "control"),
        }
        yield replace(found, app=app, environment=environment)
        app.close()


@contextmanager
def worker(processes: Processes, name: str, **extra: str) -> Iterator[subprocess.Popen[bytes]]:
    command = ("celery", "-A", "clasper_worker", "worker", "-n", f"{name}@test", "-l", "INFO")
    with processes.running(name, *command, **extra) as process:
        log = processes.logs[name]

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            return f"{name}@test ready." in log.read_text(errors="replace")

        until(is_ready, f"{name} is ready", log)
        yield process  # type: ignore[misc]


def send(processes: Processes, message: str, **fields: str) -> AsyncResult:
    kwargs = {"user_id": "u1", "agent_role": "r", "task_title": "T", "message": message, **fields}
    return processes.app.send_task("clasper.send", kwargs=kwargs, queue="clasper")


def queued(processes: Processes) -> list[Path]:
    return list((processes.folder / "data_in").glob("*.clasper.msg"))


def replies(processes: Processes) -> list[str]:
    (task,) = processes.read("u1", "tasks")
    return [post["content"] for post in processes.read("u1", "messages", task_id=task["id"])]


def test_a_turn_runs_and_a_repeated_one_gets_its_result(processes: Processes) -> None:
    with worker(processes, "worker"):
        one = send(processes, "Hello", idempotency_key="k").get(timeout=60)
        again = send(processes, "Hello", idempotency_key="k").get(timeout=60)
    assert one["status"] == "ok"
    assert one["turn_id"] == again["turn_id"]
    assert replies(processes) == [one["response"]]
    with redis.Redis.from_url(processes.environment["CLASPER_REDIS_URL"]) as state:
        assert state.keys("clasper:turn:*")  # the journal
        assert not state.exists("clasper:tick", "clasper:running")  # no scheduler


class SilentModel:
    """A model host that hears and never answers."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setblocking(False)
        self._heard: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/v1"

    @property
    def requests(self) -> int:
        with suppress(BlockingIOError):
            self._heard.append(self._server.accept()[0])
        return len(self._heard)

    def close(self) -> None:
        for one in (*self._heard, self._server):
            one.close()


@pytest.fixture
def silent() -> Iterator[SilentModel]:
    model = SilentModel()
    yield model
    model.close()


def test_a_stopped_worker_gives_its_turns_back_and_a_session_has_no_order(
    processes: Processes, silent: SilentModel
) -> None:
    with worker(processes, "first", OPENAI_BASE_URL=silent.url) as first:
        turns = [send(processes, f"Please note {word}.") for word in ("one", "two")]
        # Both turns of the session run at the same time, as on RabbitMQ.
        until(lambda: silent.requests == 2, "both ask the model", processes.logs["first"])
        assert queued(processes) == []
        first.send_signal(signal.SIGQUIT)
        first.wait(60)
    assert len(queued(processes)) == 2  # they were not acknowledged
    with worker(processes, "second"):
        ends = [turn.get(timeout=60) for turn in turns]
    assert sorted(replies(processes)) == sorted(end["response"] for end in ends)
    assert queued(processes) == []
