"""Real workers over the scheduler, and what they note."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult

from clasper_worker.devkit.local_stack.redis_server import RunningRedis, find_redis, start_redis
from tests.chaos.workers import Nursery
from tests.integration.clients import close_client
from tests.integration.forked import Forked
from tests.waiting import until

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]


class Site:
    """A Redis, a folder, and the workers that use them."""

    def __init__(self, server: RunningRedis, folder: Path, lease: float, nursery: Nursery) -> None:
        self._nursery = nursery
        self.server = server
        self.folder = folder
        self.client = redis.Redis.from_url(server.url)
        self.app = Celery("a_backend", broker=server.url, backend=server.url, set_as_current=False)
        self.environment = {
            **os.environ,
            "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{HERE}",
            "PYTHONUNBUFFERED": "1",
            "TURN_APP_REDIS": server.url,
            "TURN_APP_FOLDER": str(folder),
            "TURN_APP_LEASE": str(lease),
        }

    @contextmanager
    def worker(
        self,
        name: str,
        *options: str,
        app: str = "turn_app",
        queues: str = "clasper,clasper.dispatch",
    ) -> Iterator[Forked]:
        """A running worker; stopped at the end, if it is still there."""
        command = ["celery", "-A", app, "worker", "-l", "INFO"]
        command += ["-n", f"{name}@test", "-Q", queues, *options]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        log = self.log_of(name)
        log.write_bytes(b"")
        process = Forked(self._nursery, command, self.environment, HERE, log)
        try:
            until(lambda: self._is_ready(process, name), f"{name} is ready")
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    raise

    def log_of(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _is_ready(self, process: Forked, name: str) -> bool:
        log = self.log_of(name).read_text(errors="replace")
        assert process.poll() is None, log
        return f"{name}@test ready." in log

    def send(self, job: str, role: str = "r", *, message: str = "", **kwargs: Any) -> AsyncResult:
        """Send a turn, as any backend does; it waits for the file that ``message`` names."""
        kwargs = {"user_id": "u", "agent_role": role, "message": message, **kwargs}
        return self.app.send_task("clasper.send", kwargs=kwargs, queue="clasper", task_id=job)

    def let_go(self, name: str) -> None:
        (self.folder / name).touch()

    @property
    def notes(self) -> list[tuple[str, str, int]]:
        """What the turns noted: what, which, and in which process."""
        path = self.folder / "notes"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(what, job, int(pid)) for what, job, pid in (line.split() for line in lines)]

    def noted(self, what: str, job: str) -> list[int]:
        """The processes that noted this of the turn."""
        return [pid for did, which, pid in self.notes if (did, which) == (what, job)]

    def left(self) -> set[bytes]:
        """What the scheduler still has of any message."""
        kept = {b"clasper:tick", b"clasper:queues", b"clasper:leases:pulse"}
        found = set(self.client.keys("clasper:*")) - kept
        return {key for key in found if self.client.pttl(key) < 0}  # type: ignore[misc]

    def close(self) -> None:
        self.client.close()
        close_client(self.app)


@pytest.fixture
def site(tmp_path: Path, nursery: Nursery) -> Iterator[Site]:
    if find_redis() is None:
        pytest.skip("no Redis server here: install redis-server")
    with start_redis() as server:
        site = Site(server, tmp_path, 2.0, nursery)
        yield site
        site.close()
