"""``clasper conformance``: its reports and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from clasper_worker.cli.conformance import command
from tests.broken_backend import BREAKAGES, INTERNAL, SECRET, serving


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CONFORMANCE_REPORT_DIR", str(tmp_path / "reports"))
    return tmp_path / "reports"


def test_without_an_address_it_checks_the_reference_backend_and_says_so(folder: Path) -> None:
    result = CliRunner().invoke(command, ["--only", "tasks.create", "--json"])
    assert result.exit_code == 0, result.output
    assert "reference backend" in result.stderr
    assert json.loads(result.stdout)["summary"] == {"passed": 1, "failed": 0, "skipped": 0}
    assert json.loads((folder / "conformance.json").read_text())["checks"][0]["status"] == "passed"


def test_a_failed_check_is_exit_code_1_and_is_told_in_table_and_junit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_JWT_SECRET", SECRET)
    with serving() as (broken, target):
        monkeypatch.setenv("CONTROL_PLANE_URL", target.url)
        broken.breakage = BREAKAGES["auth.expired"]
        result = CliRunner().invoke(
            command, ["--only", "auth.expired", "--only", "tasks.create", "--only", "agents.list"]
        )
    assert result.exit_code == 1
    for told in ("FAIL  auth.expired", "the contract wants", "what came", "why it matters"):
        assert told in result.output
    assert "INTERNAL_API_TOKEN" in result.output
    suite = ET.parse(folder / "conformance.xml").getroot()
    assert {name: suite.get(name) for name in ("tests", "failures", "skipped")} == {
        "tests": "3",
        "failures": "1",
        "skipped": "1",
    }


@pytest.mark.parametrize(
    ("variables", "options", "named"),
    [
        ({}, ["--url", "http://127.0.0.1:1"], "AGENT_JWT_SECRET"),
        ({"AGENT_JWT_SECRET": SECRET}, ["--url", "http://127.0.0.1:1"], "CONTROL_PLANE_URL"),
        ({"AGENT_JWT_SECRET": SECRET}, ["--url", "localhost"], "CONTROL_PLANE_URL"),
        ({}, ["--only", "no.such"], "no.such"),
    ],
)
def test_what_cannot_be_run_is_exit_code_2(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    options: list[str],
    named: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(command, options)
    assert result.exit_code == 2, result.output
    assert named in result.stderr
    assert not folder.exists()


def test_a_backend_that_repeats_our_tokens_has_them_in_no_report(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_JWT_SECRET", SECRET)
    monkeypatch.setenv("INTERNAL_API_TOKEN", INTERNAL)
    with serving() as (broken, target):

        async def repeats(request: object, inner: object) -> object:
            from tests.broken_backend import Response

            del inner
            return Response(500, repr(request).encode())

        broken.breakage = repeats  # type: ignore[assignment]
        result = CliRunner().invoke(command, ["--url", target.url, "--only", "tasks.create"])
    assert result.exit_code == 1
    assert "x-agent-token" in result.output
    assert "eyJ" not in result.output + (folder / "conformance.json").read_text()


UNRESOLVED = """
import socket, sys, threading
from clasper_worker.cli import conformance
from clasper_worker.conformance import run

answered, real, options = int(sys.argv[1]), socket.getaddrinfo, sys.argv[2:]

def resolve(*args, **named):
    global answered
    answered -= 1
    return real(*args, **named) if answered >= 0 else threading.Event().wait()

socket.getaddrinfo = resolve
run._REQUEST_SECONDS = 1
conformance.command(options)
"""


def unresolved(answered: int, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", UNRESOLVED, str(answered), *options],
        env={**os.environ, "AGENT_JWT_SECRET": SECRET},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_name_server_that_never_answers_does_not_keep_the_command_from_ending() -> None:
    ended = unresolved(0, "--url", "http://backend.example")
    assert ended.returncode == 2, ended.stderr
    assert "backend.example was not resolved" in ended.stderr


def test_nor_does_one_that_answers_at_first_alone(folder: Path) -> None:
    with serving() as (_, target):
        url = target.url.replace("127.0.0.1", "localhost")
        # Once for the look-up, once for the first connection: 8 requests at once need more.
        ended = unresolved(2, "--url", url, "--only", "idempotency.task_together")
    assert ended.returncode == 1, ended.stderr
    assert "no answer (ConnectTimeout)" in ended.stdout
    assert (folder / "conformance.xml").exists()


def test_a_password_in_the_address_is_in_no_report(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_JWT_SECRET", SECRET)
    with serving() as (_, target):
        url = target.url.replace("http://", "http://me:pass-of-mine@")
        result = CliRunner().invoke(command, ["--url", url, "--only", "tasks.create", "--json"])
    assert result.exit_code == 0, result.output
    assert "pass-of-mine" not in result.output + (folder / "conformance.json").read_text()
    assert json.loads(result.stdout)["url"] == target.url
