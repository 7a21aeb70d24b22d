"""``Procfile``: its processes run as honcho runs them, from a shell that knows of no venv."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
import redis
from celery import Celery

from clasper_worker.devkit.local_stack.ports import PortReservations
from clasper_worker.devkit.local_stack.redis_binary import find_redis
from clasper_worker.devkit.local_stack.redis_server import start_redis
from tests.waiting import until

REPO = Path(__file__).parents[3]
pytestmark = pytest.mark.integration


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


@pytest.mark.minutes
def test_all_processes_run_without_an_active_venv(tmp_path: Path) -> None:
    if find_redis() is None:
        pytest.skip("no Redis server here: install redis-server")
    shutil.copy(REPO / "Procfile", tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    with PortReservations() as ports:
        shim, flower = (ports.choose(0, required=False, purpose="a test") for _ in range(2))
    with start_redis() as server:
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "CELERY_BROKER_URL": server.url,
            "BACKEND_URL": "http://127.0.0.1:1",
            "AGENT_JWT_SECRET": "a-secret-of-the-tests-with-more-than-32-bytes",
            "OPENAI_API_KEY": "none",
            "CLASPER_WORKSPACE": str(REPO / "workspace"),
            "CLASPER_PORT": str(shim),
            "FLOWER_PORT": str(flower),
        }
        log = tmp_path / "honcho.log"
        with log.open("wb") as output:
            honcho = subprocess.Popen(
                [sys.executable, "-m", "honcho", "start", "-d", str(tmp_path)],
                cwd=tmp_path,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        app = Celery("caller", broker=server.url, set_as_current=False)
        try:
            until(lambda: _answers(f"http://127.0.0.1:{shim}/health"), "the shim", log)
            until(lambda: _answers(f"http://127.0.0.1:{flower}/"), "Flower", log)
            until(lambda: bool(app.control.ping(timeout=0.5)), "the worker", log)
            with redis.Redis.from_url(server.url) as client:
                until(lambda: bool(client.keys("clasper:redbeat:*lock*")), "Beat", log)
            assert honcho.poll() is None, log.read_text()
        finally:
            honcho.send_signal(signal.SIGTERM)
            honcho.wait(60)
            app.close()
