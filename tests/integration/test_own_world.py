"""The demo and the tests reach nothing that the machine is configured for."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clasper_worker.config.settings import Settings
from clasper_worker.devkit.local_stack.redis_binary import find_redis
from clasper_worker.devkit.local_stack.state_file import write_stack_file

REPO = Path(__file__).parents[2]
pytestmark = pytest.mark.integration


@dataclass
class Canary:
    """A server that nobody is to connect to."""

    port: int
    callers: list[str] = field(default_factory=list)


@contextmanager
def listening() -> Iterator[Canary]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        canary = Canary(server.getsockname()[1])

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connection.settimeout(2)
                try:
                    canary.callers.append(repr(connection.recv(200)))
                except OSError:
                    canary.callers.append("a connection")
                connection.close()

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield canary
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.fixture
def canary() -> Iterator[Canary]:
    with listening() as canary:
        yield canary


def hostile_variables(port: int, folder: Path) -> dict[str, str]:
    """Every variable that could lead somewhere, and each leads to the canary."""
    http, redis = f"http://127.0.0.1:{port}", f"redis://127.0.0.1:{port}/0"
    urls = {
        "ALL_PROXY": http,
        "AGENT_DAEMON_URL": http,
        "BACKEND_URL": http,
        "CELERY_BROKER_READ_URL": redis,
        "CELERY_BROKER_URL": redis,
        "CELERY_BROKER_WRITE_URL": redis,
        "CELERY_RESULT_BACKEND": redis,
        "CLASPER_REDIS_URL": redis,
        "CONTROL_PLANE_URL": http,
        "FLOWER_BROKER_API": http,
        "HTTP_PROXY": http,
        "HTTPS_PROXY": http,
        "OPENAI_BASE_URL": f"{http}/v1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": http,
        "http_proxy": http,
        "https_proxy": http,
    }
    secrets = {name.upper(): "a-secret-of-the-operator-and-of-32-bytes" for name in SECRETS}
    elsewhere = {
        "CELERY_CONFIG_MODULE": "no_such_module",
        "CLASPER_AGENTS": "u1:writer",
        "CLASPER_PORT": str(port),
        "CLASPER_STATE_DIR": str(folder / ".clasper"),
        "CLASPER_TURN_HARD_LIMIT_SEC": "1",  # less than the soft limit: nothing would start
        "CLASPER_WORKSPACE": str(folder / "no-such-workspace"),
        "LLM_MODEL_DEFAULT": "gpt-of-the-operator",
        "LLM_PROVIDER": "none-that-there-is",
        "NO_PROXY": "",
        "OPENAI_ORG_ID": "org-of-the-operator",
        "USER_ID": "somebody",
    }
    return urls | secrets | elsewhere


SECRETS = (
    "agent_daemon_api_key",
    "agent_jwt_secret",
    "agent_token",
    "anthropic_api_key",
    "internal_api_token",
    "openai_api_key",
)


def configure(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Have a folder configured in each way; the environment to call something in it with.

    The environment comes first. Who does not see it meets the .env, and then a running stack.
    """
    lines = (f"{name}={value}\n" for name, value in variables.items())
    (folder / ".env").write_text("".join(lines))
    (folder / ".clasper").mkdir()  # a stack that runs as long as this process
    write_stack_file(folder / ".clasper", environment=variables, urls={})
    return {**os.environ, **variables, "PYTHONPATH": str(REPO)}


def test_the_demo_reaches_nothing_that_is_configured(canary: Canary, tmp_path: Path) -> None:
    """Its own Redis, backend, model, keys and workspace, whatever else is named."""
    if find_redis() is None:
        pytest.skip("no Redis server here: install redis-server")
    variables = hostile_variables(canary.port, tmp_path)
    # The demo is found beside the .env, as in a checkout.
    for name in ("examples", "workspace"):
        shutil.copytree(REPO / name, tmp_path / name)
    environment = configure(tmp_path, variables)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "examples" / "demo.py")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 turns, each enqueued another way" in done.stdout
    assert "clasper-offline" in done.stdout
    assert canary.callers == []


# One of each kind: settings, a command in a process, a turn through a worker.
SAMPLE = (
    "unit/config/test_settings.py",
    "unit/cli/test_prompt.py",
    "integration/turn/test_shim.py",
)
MORE = (
    "unit/shim/test_workspace_routes.py",
    "unit/cli/test_backend.py",
    "unit/devkit/local_stack/test_plan.py",
    "integration/devkit/local_stack/test_redis_server.py",
)


@pytest.mark.parametrize("sample", [SAMPLE, pytest.param(MORE, marks=pytest.mark.minutes)])
def test_the_tests_reach_nothing_that_is_configured(
    canary: Canary, tmp_path: Path, sample: tuple[str, ...]
) -> None:
    """Whatever the folder in which they are called, and its environment, name."""
    environment = configure(tmp_path, hostile_variables(canary.port, tmp_path))
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", str(REPO / "pyproject.toml"), "-q", "-n", "0",
         "-p", "no:cacheprovider", *(str(REPO / "tests" / name) for name in sample)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert canary.callers == []


def test_no_setting_of_this_machine_is_seen_by_a_test() -> None:
    """Nor a variable that a library would read by itself."""
    names = {name.upper() for name in (*Settings.model_fields, *hostile_variables(1, Path()))}
    assert names.intersection(name.upper() for name in os.environ) == {"CLASPER_STATE_DIR"}
    assert not Path(".env").exists()
