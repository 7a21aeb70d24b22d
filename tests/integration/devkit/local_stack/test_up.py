"""`clasper up` with all its real parts."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
from celery import Celery

import clasper_worker
from clasper_worker.devkit.local_stack.ports import is_listening
from clasper_worker.devkit.local_stack.redis_binary import find_redis

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(find_redis() is None, reason="no Redis server here: install redis-server"),
]

ANY_PORTS = [
    *("--port", "0", "--broker-port", "0", "--backend-port", "0"),
    *("--model-port", "0", "--flower-port", "0"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "AGENTS.md").write_text("Answer briefly.\n", "utf-8")
    return tmp_path


@pytest.fixture
def environment() -> dict[str, str]:
    """Ours, and where the package lies, for processes that run in another folder."""
    return {**os.environ, "PYTHONPATH": str(Path(clasper_worker.__file__).parents[2])}


class Stack:
    """A running `clasper up`, its output in files."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.out = folder / "out"
        self.log = folder / "log"
        with self.out.open("w") as out, self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "clasper_worker", "up", "--ephemeral", "--json", *ANY_PORTS],
                cwd=folder,
                env=environment,
                stdout=out,
                stderr=log,
            )

    def wait_until(self, condition: Callable[[], object], seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text("utf-8")
            assert time.monotonic() < deadline, self.log.read_text("utf-8")
            time.sleep(0.05)


@pytest.fixture
def stack(folder: Path, environment: dict[str, str]) -> Iterator[Stack]:
    stack = Stack(folder, environment)
    try:
        yield stack
    finally:
        stack.process.kill()  # does nothing where the test stopped it
        stack.process.wait()


def processes_of(state_dir: str) -> set[int]:
    """Every process that was started with this state folder in its environment."""
    marker = f"CLASPER_STATE_DIR={state_dir}\0".encode()
    found = set()
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker in entry.read_bytes():
                found.add(int(entry.parent.name))
        except OSError:  # ended meanwhile, or another user's
            continue
    return found - {os.getpid()}


@pytest.mark.skipif(sys.platform != "linux", reason="looks for leftover processes in /proc")
def test_everything_starts_serves_a_turn_and_stops_without_a_trace(
    stack: Stack, folder: Path, environment: dict[str, str]
) -> None:
    state_dir = os.environ["CLASPER_STATE_DIR"]
    stack.wait_until(lambda: stack.out.read_text("utf-8").endswith("\n"))
    urls = json.loads(stack.out.read_text("utf-8"))
    stack_file = Path(state_dir, "stack.json")
    written = json.loads(stack_file.read_text("utf-8"))

    assert set(urls) == {"shim", "backend", "broker", "model", "flower"}
    assert written["urls"] == urls
    assert written["pid"] == stack.process.pid
    assert stat.S_IMODE(stack_file.stat().st_mode) == 0o600
    assert httpx2.get(f"{urls['shim']}/health").status_code == 200
    assert httpx2.get(f"{urls['backend']}/health").status_code == 200
    assert httpx2.get(f"{urls['flower']}/healthcheck").status_code == 200

    # Any Celery app on the broker, without importing ours.
    word = uuid4().hex
    with Celery(broker=urls["broker"], backend=urls["broker"], set_as_current=False) as app:
        sent = app.send_task(
            "clasper.send",
            kwargs={
                "user_id": "u1",
                "session_key": "user:u1:writer",
                "message": f"Say {word} again.",
            },
            queue="clasper",
        )
        result = sent.get(timeout=60)
    assert result["status"] == "ok"
    assert word in result["response"]

    second = subprocess.run(
        [sys.executable, "-m", "clasper_worker", "up"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    assert f"process {stack.process.pid}" in second.stderr
    assert urls["shim"] in second.stderr

    assert len(processes_of(state_dir)) > 7
    stack.process.send_signal(signal.SIGINT)
    assert stack.process.wait(60) == 0

    assert processes_of(state_dir) == set()
    assert not stack_file.exists()
    assert not any(is_listening(int(url.split(":")[2].split("/")[0])) for url in urls.values())
    said = stack.log.read_text("utf-8")
    assert said.splitlines()[-1].endswith("| stopped")
    for secret in ("AGENT_JWT_SECRET", "INTERNAL_API_TOKEN"):
        assert written["environment"][secret] not in said


def test_without_a_workspace_it_says_how_to_make_one(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "clasper_worker", "up"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert refused.returncode == 1
    assert "clasper init" in refused.stderr
    assert processes_of(os.environ["CLASPER_STATE_DIR"]) == set()
