"""All that the processes of a deployment write in JSON mode, a Redis restart included."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError

from clasper_worker.devkit.local_stack.bare_environment import bare_environment
from clasper_worker.devkit.local_stack.ports import PortReservations
from clasper_worker.devkit.local_stack.redis_binary import find_redis
from clasper_worker.devkit.local_stack.redis_server import start_redis
from tests.waiting import until

REPO = Path(__file__).parents[3]
pytestmark = pytest.mark.integration


@contextmanager
def running(folder: Path, name: str, environment: dict[str, str], *command: str) -> Iterator[Path]:
    """A process as long as the block, whose whole output is in the file."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield log
        assert process.poll() is None, log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _pings(app: Celery) -> bool:
    try:
        return bool(app.control.ping(timeout=0.5))
    except (redis.RedisError, OperationalError):  # over a connection to the Redis of before
        return False


def _page(url: str) -> str:
    try:
        answer = httpx2.get(url, timeout=10)
    except httpx2.HTTPError:
        return ""
    return answer.text if answer.status_code == 200 else ""


def test_every_line_is_json_and_a_redis_restart_is_no_traceback(tmp_path: Path) -> None:
    if find_redis() is None:
        pytest.skip("no Redis server here: install redis-server")
    with PortReservations() as ports:
        shim, flower = (ports.choose(0, required=False, purpose="a test") for _ in range(2))
    with start_redis(tmp_path / "redis") as server, ExitStack() as stack:
        environment = {
            **bare_environment(os.environ),
            "CELERY_BROKER_URL": server.url,
            "BACKEND_URL": "http://127.0.0.1:1",
            "AGENT_JWT_SECRET": "a-secret-of-the-tests-with-more-than-32-bytes",
            "OPENAI_API_KEY": "none",
            "CLASPER_WORKSPACE": str(REPO / "workspace"),
            "CLASPER_LOG_FORMAT": "json",
            "CLASPER_BUSI_POLICY": "reject",  # one warning at least from each
            "PYTHONUNBUFFERED": "1",
        }
        commands = {
            "worker": ("clasper_worker", "worker", "--processes", "1"),
            "beat": ("clasper_worker", "beat"),
            "celery-beat": ("celery", "--quiet", "-A", "beat_schedule", "beat"),
            "shim": ("clasper_worker", "serve", "--port", str(shim)),
            "flower": ("celery", "--quiet", "-A", "clasper_worker", "flower",
                       "--address=127.0.0.1", f"--port={flower}"),
        }  # fmt: skip
        logs = {
            name: stack.enter_context(running(tmp_path, name, environment, *command))
            for name, command in commands.items()
        }
        app = Celery("caller", broker=server.url, set_as_current=False)
        until(lambda: _page(f"http://127.0.0.1:{shim}/health"), "the shim", logs["shim"])
        until(lambda: _pings(app), "the worker", logs["worker"])
        tab = until(lambda: _page(f"http://127.0.0.1:{flower}/broker"), "Flower", logs["flower"])
        assert "clasper.dispatch" in tab
        assert "not supported" not in tab
        with redis.Redis.from_url(server.url) as client:
            until(lambda: bool(client.keys("clasper:redbeat:*lock*")), "Beat", logs["beat"])
        server.restart()
        until(lambda: _pings(app), "the worker", logs["worker"])
        app.close()
    for name, log in logs.items():
        text = log.read_text()
        assert "Traceback" not in text, f"{name}:\n{text}"
        for line in text.splitlines():
            assert isinstance(json.loads(line), dict), f"{name}: {line}"
    assert "CLASPER_BUSY_POLICY" in logs["worker"].read_text()
