import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx2
import pytest
from click.testing import CliRunner

from clasper_worker.cli.offline_model import command

RUN = [sys.executable, "-m", "clasper_worker", "offline-model", "--port", "0"]


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        RUN, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        yield running
        running.kill()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_its_address_serves_and_stops_cleanly(
    process: subprocess.Popen[str], stop: signal.Signals
) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("Offline model listening on http://127.0.0.1:")
    base = line.split()[-1]
    body = {"messages": [{"role": "user", "content": "zx-81"}]}
    reply = httpx2.post(f"{base}/chat/completions", json=body, trust_env=False)
    assert "zx-81" in reply.json()["choices"][0]["message"]["content"]
    process.send_signal(stop)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (0, "", "")


def test_a_host_that_others_can_reach_is_refused() -> None:
    result = CliRunner().invoke(command, ["--host", "0.0.0.0"])
    assert result.exit_code == 2
    assert "--allow-remote" in result.output


def test_a_port_in_use_is_a_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = CliRunner().invoke(command, ["--port", str(port)])
    assert result.exit_code == 1
    assert f"Cannot listen on 127.0.0.1, port {port}: it is in use" in str(result.exception)


def test_help_shows_an_example() -> None:
    result = CliRunner().invoke(command, ["--help"])
    assert result.exit_code == 0
    assert "OPENAI_BASE_URL=" in result.output
