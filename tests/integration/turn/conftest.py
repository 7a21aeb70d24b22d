"""Real processes: Redis, the reference backend, the offline model, a worker, the shim."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx2
import jwt
import pytest
import redis
from celery import Celery

from clasper_worker.config.names import QUEUES
from clasper_worker.config.settings import Settings
from clasper_worker.devkit.local_stack.redis_server import RunningRedis, find_redis, start_redis
from clasper_worker.engine.queue.cancel import Canceller
from clasper_worker.engine.queue.scheduler import open_schedule
from tests.chaos.workers import Nursery
from tests.integration.clients import close_client
from tests.integration.forked import Forked
from tests.waiting import until

REPO = Path(__file__).parents[3]
SECRET = "a-secret-of-at-least-32-characters"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2):
            return True
    except OSError:
        return False


@dataclass
class Processes:
    """The stack's addresses, and how to start more of its processes."""

    environment: dict[str, str]
    folder: Path
    backend_url: str
    model_url: str
    app: Celery
    nursery: Nursery
    server: RunningRedis
    http: httpx2.Client  # one for all questions: to make one takes longer than to ask
    logs: dict[str, Path] = field(default_factory=dict)

    @contextmanager
    def running(self, name: str, *command: str, **extra: str) -> Iterator[Forked]:
        log = self.logs[name] = self.folder / f"{name}.log"
        log.write_bytes(b"")
        environment = {**self.environment, **extra}
        process = Forked(self.nursery, command, environment, self.folder, log)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @contextmanager
    def worker(self, name: str = "worker", *options: str, **extra: str) -> Iterator[str]:
        node = f"{name}@test"
        command = ("celery", "-A", "clasper_worker", "worker", "-E", "-n", node, "-l", "INFO")
        with self.running(name, *command, *options, **extra):
            until(lambda: self.pings(node), f"{name} answers ping", self.logs[name])
            yield node

    def pings(self, node: str) -> bool:
        """Whether a worker answers."""
        try:
            return bool(self.app.control.ping([node], timeout=0.5))
        except redis.ConnectionError:  # of a connection that a restart of Redis closed
            return False

    def read(self, user_id: str, collection: str, **query: str) -> list[dict[str, Any]]:
        """What the backend has, asked as any client would."""
        claims = {"type": "agent", "user_id": user_id, "agent_role": "test"}
        token = jwt.encode({**claims, "exp": int(time.time()) + 60}, SECRET)
        url = f"{self.backend_url}/api/mission-control/{collection}"
        items: list[dict[str, Any]] = []
        while True:
            answer = self.http.get(url, params=query, headers={"X-Agent-Token": token})
            page = answer.raise_for_status().json()
            items += page["items"]
            if not page.get("next_cursor"):
                return items
            query["cursor"] = page["next_cursor"]

    def posted(self, user_id: str) -> list[str]:
        """What was said in all of a user's threads."""
        return [
            message["content"]
            for task in self.read(user_id, "tasks")
            for message in self.read(user_id, "messages", task_id=task["id"])
        ]


@pytest.fixture(scope="module")
def slow_speech(processes: Any) -> Iterator[dict[str, str]]:
    """Variables that point a worker at a model which says a word every 50 ms."""
    port = free_port()
    command = ("clasper_worker", "offline-model", "--port", str(port), "--chunk-delay", "0.05")
    with processes.running("speaking-model", *command):
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{url}/health"), "model", processes.logs["speaking-model"])
        yield {"OPENAI_BASE_URL": f"{url}/v1"}


@pytest.fixture(scope="module")
def shims(processes: Any) -> Iterator[list[str]]:
    with ExitStack() as stack:
        yield [start_shim(processes, stack, f"shim{number}") for number in range(2)]


def start_shim(processes: Any, stack: ExitStack, name: str, port: int | None = None) -> str:
    port = port or free_port()
    command = ("clasper_worker", "serve", "--port", str(port))
    stack.enter_context(processes.running(name, *command, AGENT_DAEMON_API_KEY="key"))
    until(lambda: answers(f"http://127.0.0.1:{port}/health"), name, processes.logs[name])
    return f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def speaker(processes: Any, slow_speech: dict[str, str]) -> Iterator[str]:
    with processes.worker("speaker", **slow_speech) as node:
        yield node


@pytest.fixture(scope="module")
def slow_model(processes: Any) -> Iterator[dict[str, str]]:
    """Variables that point a worker at a model which never answers in time."""
    port = free_port()
    command = ("clasper_worker", "offline-model", "--port", str(port), "--latency", "600")
    with processes.running("slow-model", *command):
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{url}/health"), "slow model", processes.logs["slow-model"])
        yield {"OPENAI_BASE_URL": f"{url}/v1"}


@pytest.fixture
def canceller(processes: Any) -> Iterator[Canceller]:
    settings = Settings(
        _env_file=None, celery_broker_url=processes.environment["CELERY_BROKER_URL"]
    )
    made = Canceller(processes.app, open_schedule(settings), QUEUES)
    yield made
    made.close()


@pytest.fixture
def broker(processes: Any) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(processes.environment["CELERY_BROKER_URL"]) as client:
        yield client


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Processes]:
    yield from run_processes(tmp_path_factory.mktemp("processes"), nursery)


def run_processes(folder: Path, nursery: Nursery) -> Iterator[Processes]:
    if find_redis() is None:
        pytest.skip("no Redis server here: install redis-server")
    backend, model = free_port(), free_port()
    with start_redis() as server:
        own = {name.upper() for name in Settings.model_fields}
        environment = {name: value for name, value in os.environ.items() if name not in own}
        environment |= {
            "CELERY_BROKER_URL": server.url,
            "BACKEND_URL": f"http://127.0.0.1:{backend}",
            "AGENT_JWT_SECRET": SECRET,
            "INTERNAL_API_TOKEN": "internal",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{model}/v1",
            "OPENAI_API_KEY": "sk-offline",
            "CLASPER_WORKSPACE": str(REPO / "workspace"),
            "CLASPER_STATE_DIR": str(folder / "state"),
            "PYTHONUNBUFFERED": "1",
        }
        # A customer's own Celery app: it knows the broker, and nothing of ours.
        app = Celery("my_backend", broker=server.url, backend=server.url, set_as_current=False)
        urls = (environment["BACKEND_URL"], f"http://127.0.0.1:{model}")
        http = httpx2.Client(timeout=30)
        found = Processes(environment, folder, *urls, app, nursery, server, http)
        database = ("--database", ":memory:")
        with (
            found.running(
                "backend", "clasper_worker", "backend", "--port", str(backend), *database
            ),
            found.running("model", "clasper_worker", "offline-model", "--port", str(model)),
        ):
            until(lambda: answers(f"{found.backend_url}/health"), "backend", found.logs["backend"])
            until(lambda: answers(f"{found.model_url}/health"), "model", found.logs["model"])
            yield found
        http.close()
        close_client(app)
