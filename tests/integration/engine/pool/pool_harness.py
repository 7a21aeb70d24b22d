"""Real workers and a real Redis for the tests of the pools."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from celery import Celery
from celery.events import EventReceiver
from celery.states import READY_STATES

from clasper_worker.devkit.local_stack.redis_binary import find_redis
from tests.integration.forked import Forked
from tests.waiting import until

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[3]
DEADLINE = 40.0  # seconds for what waits otherwise than by `until`


def redis_executable() -> str | None:
    found = find_redis()
    return found.path if found else None


class RedisServer:
    """A Redis server of our own, which may be killed and started again."""

    def __init__(self, executable: str, folder: Path) -> None:
        self._executable = executable
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port, decode_responses=True)
        self.start()

    def start(self) -> None:
        command = [self._executable, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", "yes", "--dir", str(self._folder), "--loglevel", "warning"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until(self._answers, "Redis answers")

    def _answers(self) -> bool:
        with suppress(redis.exceptions.ConnectionError):
            return bool(self.client.ping())
        return False

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.client.close()
        self.kill()


@dataclass
class Worker:
    """A running ``celery worker`` process."""

    name: str
    process: Forked
    log_file: Path
    app: Celery

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", errors="replace")

    def ask(self, question: str, **kwargs: Any) -> Any:
        """The worker's answer to a remote control command, such as ``stats``."""

        answers = self.app.control.broadcast(
            question, arguments=kwargs, destination=[self.name], reply=True, timeout=10, limit=1
        )
        return answers[0][self.name]

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log
        return f"{self.name} ready." in self.log

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(DEADLINE)


@dataclass
class Events:
    """Celery's events, as a monitor receives them."""

    seen: list[dict[str, Any]] = field(default_factory=list)

    def of(self, task_id: str) -> dict[str, dict[str, Any]]:
        """The task's events by type."""
        return {event["type"]: event for event in self.seen if event.get("uuid") == task_id}

    def wait_for(self, task_id: str, event_type: str) -> dict[str, Any]:
        event: dict[str, Any] = until(lambda: self.of(task_id).get(event_type), event_type)  # type: ignore[arg-type, return-value]
        return event


class Receiver(EventReceiver):  # type: ignore[misc, unused-ignore]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_listening = threading.Event()

    def on_consume_ready(self, *args: Any, **kwargs: Any) -> None:
        self.is_listening.set()


class Sent:
    """A task that was sent; read by polling, so that nothing listens when Redis goes away."""

    def __init__(self, task_id: str, sender: Celery, backend: Any) -> None:
        self.id = task_id
        self._sender = sender
        self._backend = backend

    @property
    def meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = self._backend.get_task_meta(self.id, cache=False)
        return meta

    @property
    def state(self) -> str:
        return str(self.meta["status"])

    def get(self) -> Any:
        """Wait for the outcome, and return or raise it."""
        meta = until(lambda: self.meta["status"] in READY_STATES and self.meta, f"{self.id} ends")
        if isinstance(meta["result"], BaseException):  # type: ignore[index]
            raise meta["result"]  # type: ignore[index]
        return meta["result"]  # type: ignore[index]

    def revoke(self, *, terminate: bool) -> None:
        self._sender.control.revoke(self.id, terminate=terminate)


StartWorker = Callable[..., Any]
Send = Callable[..., Sent]
Find = Callable[[str], Sent]
Notes = Callable[[str], list[str]]


def celery_environment(server: RedisServer) -> dict[str, str]:
    """What a ``celery`` process needs to find the probe app and its Redis."""
    python_path = os.pathsep.join([str(REPOSITORY), str(HERE)])
    return {
        **os.environ,
        "PROBE_REDIS_URL": server.url,
        "PYTHONPATH": python_path,
        "PYTHONUNBUFFERED": "1",
    }


def run_celery(server: RedisServer, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a ``celery`` command of the probe app to its end."""
    return subprocess.run(
        [sys.executable, "-m", "celery", "-A", "probe_app", *options],
        cwd=HERE,
        env=celery_environment(server),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
