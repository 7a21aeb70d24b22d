"""One set of workers and one Redis for each test module of the pools."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery import Celery

from tests.chaos.workers import Nursery
from tests.integration.forked import Forked
from tests.waiting import until

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for pool_harness, which tests and fixtures share

from pool_harness import (  # noqa: E402
    DEADLINE,
    Events,
    Find,
    Notes,
    Receiver,
    RedisServer,
    Send,
    Sent,
    StartWorker,
    Worker,
    celery_environment,
    redis_executable,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    executable = redis_executable()
    if executable is None:
        pytest.skip("no Redis server here: install redis-server")
    server = RedisServer(executable, tmp_path_factory.mktemp("redis"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def celery_client(server: RedisServer) -> Iterator[Celery]:
    """An app without tasks: as a backend that does not import the worker has."""
    app = Celery("client", broker=server.url, set_as_current=False)
    yield app
    app.close()


@pytest.fixture(scope="module")
def find(server: RedisServer, celery_client: Celery) -> Iterator[Find]:
    """A task by its id."""
    reader = Celery("reader", backend=server.url, set_as_current=False)
    yield lambda task_id: Sent(task_id, celery_client, reader.backend)
    reader.backend.client.close()
    reader.close()


@pytest.fixture(scope="module")
def send(celery_client: Celery, find: Find) -> Send:
    """Send a task by its name: ``send(name, args=[…], queue=…, …)``."""
    return lambda name, **options: find(celery_client.send_task(name, **options).id)


@pytest.fixture
def notes(server: RedisServer) -> Notes:
    """What a task has noted under a key."""
    return lambda key: server.client.lrange(key, 0, -1)


@pytest.fixture(scope="module")
def start_worker(
    server: RedisServer,
    celery_client: Celery,
    tmp_path_factory: pytest.TempPathFactory,
    nursery: Nursery,
) -> StartWorker:
    """Start a worker with command line options; a context manager that stops it."""
    folder = tmp_path_factory.mktemp("workers")

    @contextmanager
    def start(*options: str, queue: str = "celery", **environment: str) -> Iterator[Worker]:
        number = len(list(folder.iterdir()))
        name = f"w{number}-{server.port}@test"
        log_file = folder / f"{number}.log"
        command = ["celery", "-A", "probe_app", "worker", "-n", name, "-l", "INFO", "-Q", queue]
        command += ["--without-gossip", "--without-mingle", *options]
        log_file.write_bytes(b"")
        process = Forked(
            nursery, command, {**celery_environment(server), **environment}, HERE, log_file
        )
        worker = Worker(name, process, log_file, celery_client)
        try:
            until(worker.is_ready, "the worker is ready")
            yield worker
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    raise

    return start


@pytest.fixture(scope="module")
def events(celery_client: Celery) -> Iterator[Events]:
    events = Events()
    with celery_client.connection() as connection:
        receiver = Receiver(connection, handlers={"*": events.seen.append}, app=celery_client)
        thread = threading.Thread(target=receiver.capture, daemon=True)
        thread.start()
        receiver.is_listening.wait(DEADLINE)
        yield events
        receiver.should_stop = True
        thread.join(DEADLINE)
