from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import jwt
import pytest
from click.testing import CliRunner

from clasper_worker.cli.backend import command
from clasper_worker.errors import ConfigurationError
from tests.scripted_shim import JOB, KEY, scripted_shim

SECRET = "a-secret-of-the-tests-with-more-than-32-bytes"


class Running:
    """`clasper backend` as a process, listening."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in {"PATH", "HOME", "PYTHONPATH", "VIRTUAL_ENV"}
        }
        root = str(Path(__file__).parents[3])
        environment["PYTHONPATH"] = os.pathsep.join(
            [root, *filter(None, [environment.get("PYTHONPATH")])]
        )
        environment |= {"PYTHONWARNINGS": "error", "AGENT_JWT_SECRET": SECRET, **variables}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "clasper_worker", "backend", "--port", "0", *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.banner = self.process.stdout.readline()
        found = re.search(r"http://\S+", self.banner)
        if found is None:
            self.process.kill()
            raise AssertionError(f"no address: {self.banner}{self.process.communicate()}")
        self.url = found.group()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal; the exit code, and what was still printed."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.send_signal(number)
        code = self.process.wait(30)
        # Not `communicate`, which would lose what `readline` has read ahead.
        return code, self.process.stdout.read(), self.process.stderr.read()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start backends in an empty folder."""
    started: list[Running] = []

    def start(*arguments: str, **variables: str) -> Running:
        started.append(Running(tmp_path, *arguments, **variables))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.communicate(timeout=30)


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("AGENT_JWT_SECRET", "AGENT_JWT_ALGORITHM", "INTERNAL_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("CLASPER_STATE_DIR", raising=False)
    return tmp_path


CLAIMS = {"type": "agent", "user_id": "u1", "agent_role": "x"}


def tasks(url: str, *titles: str) -> list[str]:
    token = jwt.encode({**CLAIMS, "exp": int(time.time()) + 600}, SECRET)
    with httpx2.Client(base_url=url, headers={"X-Agent-Token": token}) as client:
        for title in titles:
            client.post("/api/mission-control/tasks", json={"title": title}).raise_for_status()
        found = client.get("/api/mission-control/tasks").raise_for_status().json()
    return [item["title"] for item in found["items"]]


def test_serves_keeps_its_data_and_ends_well(run: Callable[..., Running], tmp_path: Path) -> None:
    """Default database in the state folder; quiet; exit code 0 on SIGTERM; all there again."""
    first = run(INTERNAL_API_TOKEN="inner")
    assert ".clasper/backend.db" in first.banner
    assert tasks(first.url, "a", "b") == ["a", "b"]
    assert first.stop() == (0, "", "")
    assert (tmp_path / ".clasper" / "backend.db").is_file()
    second = run()
    assert tasks(second.url) == ["a", "b"]
    code, out, _ = second.stop(signal.SIGINT)
    assert code == 0
    assert "off: notifications_dispatch, agents" in out


def test_ends_well_while_a_stream_is_open(run: Callable[..., Running]) -> None:
    """A client that listens does not keep it from stopping, and sees a proper end."""
    running = run("--database", ":memory:", INTERNAL_API_TOKEN="inner")
    token = jwt.encode({**CLAIMS, "exp": int(time.time()) + 600}, SECRET)
    with httpx2.stream(
        "GET",
        f"{running.url}/api/mission-control/events",
        headers={"X-Agent-Token": token},
        timeout=30,
    ) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "id: 0"
        running.process.send_signal(signal.SIGTERM)
        rest = list(lines)
    assert "event: ready" in rest
    assert running.stop() == (0, "", "")


def test_a_short_secret_is_remarked_once(run: Callable[..., Running]) -> None:
    """At the start, not with each request, even where warnings are errors."""
    running = run("--database", ":memory:", AGENT_JWT_SECRET="dev-secret-change-me")
    key = b"dev-secret-change-me".ljust(64, b"\0")  # the same key to HMAC, without the warning
    token = jwt.encode({**CLAIMS, "exp": int(time.time()) + 600}, key)
    for _ in range(2):
        httpx2.get(
            f"{running.url}/api/mission-control/tasks", headers={"X-Agent-Token": token}
        ).raise_for_status()
    code, _, err = running.stop()
    assert code == 0
    assert err.count("AGENT_JWT_SECRET") == 1
    assert err.startswith("Warning:")
    assert err.count("\n") == 1


def test_ends_well_while_its_page_follows_a_turn(run: Callable[..., Running]) -> None:
    """The shim's key is sent to it; the stream that is relayed holds up no shutdown."""
    with scripted_shim() as shim:
        variables = {"AGENT_DAEMON_URL": shim.url, "AGENT_DAEMON_API_KEY": f"{KEY},another"}
        running = run("--database", ":memory:", INTERNAL_API_TOKEN="inner", **variables)
        assert "open it in a browser" in running.banner
        assert "Worker connected" in httpx2.get(running.url).text
        shim.emit("chunk", data="Hello", step=1)
        address = f"{running.url}/page/turns/{JOB}/events"
        with httpx2.stream("GET", address, timeout=30) as answer:
            lines = answer.iter_lines()
            assert next(lines) == "id: e1"
            running.process.send_signal(signal.SIGTERM)
            list(lines)  # to its end, in good order
        assert running.stop() == (0, "", "")


@pytest.mark.parametrize(
    ("options", "is_shown"),
    [
        ((), True),
        (("--no-page",), False),
        (("--host", "0.0.0.0"), False),
        (("--host", "0.0.0.0", "--page"), True),
    ],
)
def test_the_page_is_shown_on_loopback_unless_told_otherwise(
    run: Callable[..., Running], options: tuple[str, ...], is_shown: bool
) -> None:
    running = run("--database", ":memory:", *options, INTERNAL_API_TOKEN="inner")
    url = running.url.replace("0.0.0.0", "127.0.0.1")
    assert (httpx2.get(url).status_code == 200) is is_shown
    assert running.stop()[0] == 0


def test_switches_features_off(run: Callable[..., Running]) -> None:
    """Several, as asked."""
    running = run(
        "--database",
        ":memory:",
        "--disable-feature",
        "standup",
        "--disable-feature",
        "tools",
        INTERNAL_API_TOKEN="inner",
    )
    features = httpx2.get(
        f"{running.url}/api/mission-control/capabilities", headers={"X-Internal-Token": "inner"}
    ).json()["features"]
    assert {name for name, on in features.items() if not on} == {"standup", "tools"}
    assert running.stop()[0] == 0


def test_says_which_variable_is_missing(clean: Path) -> None:
    """Before anything is made or opened."""
    result = CliRunner().invoke(command, [])
    assert isinstance(result.exception, ConfigurationError)
    assert result.exception.details["variable"] == "AGENT_JWT_SECRET"
    assert "AGENT_JWT_SECRET is not set" in str(result.exception)
    assert list(clean.iterdir()) == []


def test_says_that_the_port_is_taken(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what to do."""
    monkeypatch.setenv("AGENT_JWT_SECRET", SECRET)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(command, ["--port", port, "--database", ":memory:"])
    assert isinstance(result.exception, ConfigurationError)
    assert port in str(result.exception)
    assert "--port" in str(result.exception)


@pytest.mark.parametrize(
    "arguments",
    [["--port", "70000"], ["--port", "x"], ["--disable-feature", "standups"], ["extra"]],
)
def test_refuses_bad_options(clean: Path, arguments: list[str]) -> None:
    """Exit code 2 and a usage message."""
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert "Usage" in result.output


def test_help_has_an_example() -> None:
    """Every command's help does."""
    result = CliRunner().invoke(command, ["--help"])
    assert result.exit_code == 0
    assert "Example:" in result.output
    assert "--database :memory:" in result.output
