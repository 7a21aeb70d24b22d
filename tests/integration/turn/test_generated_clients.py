"""Clients that generators make from the shim's document, each of which runs a turn."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.integration.turn.conftest import answers, free_port
from tests.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.needs_services]

GENERATOR = "openapi-python-client==0.29.1"
PACKAGES = ("openapi-typescript@7.13.0", "openapi-fetch@0.17.0", "typescript@5.9.3")

PYTHON_CALLER = """
import sys
from client import AuthenticatedClient
from client.api.jobs import get_job
from client.api.turns import send_turn
from client.models import SendRequest, TurnResult

api = AuthenticatedClient(
    base_url=sys.argv[1], token="key", auth_header_name="X-Agent-Daemon-Key", prefix=""
)
request = SendRequest(user_id="py", message="Hello from Python", task_title="T")
result = send_turn.sync(client=api, body=request, wait="60")
assert isinstance(result, TurnResult), result
print(result.response)
refused = send_turn.sync_detailed(client=api, body=SendRequest(user_id="py", message=""))
assert refused.status_code == 400, refused
assert refused.parsed.details.fields[0].field == "message", refused.parsed
missing = get_job.sync_detailed("nope", client=api)
assert (missing.status_code, missing.parsed.code) == (404, "unknown_job")
"""

TYPESCRIPT_CALLER = """
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

const key = "key";
const api = createClient<paths>({
  baseUrl: process.argv[2],
  headers: { "X-Agent-Daemon-Key": key },
});
const { data, error } = await api.POST("/api/agents/send", {
  params: { query: { wait: "60" } },
  body: { user_id: "ts", message: "Hello from TypeScript", task_title: "T" },
});
if (error || data.status !== "ok") throw new Error(JSON.stringify(error ?? data));
const response: string = data.response;
console.log(response);
const missing = await api.GET("/api/jobs/{job_id}", { params: { path: { job_id: "nope" } } });
if (missing.error?.code !== "unknown_job") throw new Error(JSON.stringify(missing));
"""


@pytest.fixture(scope="module")
def shim(processes: Any) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ("clasper_worker", "serve", "--port", str(port))
    with (
        processes.worker("generated"),
        processes.running("shim", *command, AGENT_DAEMON_API_KEY="key"),
    ):
        until(lambda: answers(f"{url}/health"), "shim", processes.logs["shim"])
        yield url


@pytest.fixture
def document(shim: str, tmp_path: Path) -> Path:
    headers = {"X-Agent-Daemon-Key": "key"}
    answer = httpx2.get(f"{shim}/openapi.json", headers=headers, timeout=30).raise_for_status()
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(answer.json()))
    return path


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def installed(*command: str | Path, cwd: Path) -> None:
    """Run an installer; without its registry there is nothing to test with."""
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{command[0]} could not install within five minutes")
    if done.returncode != 0:
        pytest.skip(f"{command[0]} could not install: {done.stderr[-200:]}")


def test_a_generated_python_client_runs_a_turn(shim: str, document: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    installed(sys.executable, "-m", "venv", venv, cwd=tmp_path)
    python = venv / "bin" / "python"
    installed(python, "-m", "pip", "install", "--quiet", GENERATOR, "httpx", cwd=tmp_path)
    generate = (venv / "bin" / "openapi-python-client", "generate", "--meta", "none")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"post_hooks": []}))
    told = run(
        *(*generate, "--path", document, "--output-path", "client", "--config", config),
        cwd=tmp_path,
    )
    assert "Warning" not in told, told
    (tmp_path / "caller.py").write_text(PYTHON_CALLER)
    assert "Hello from Python" in run(python, "caller.py", shim, cwd=tmp_path)


def test_a_generated_typescript_client_runs_a_turn(
    shim: str, document: Path, tmp_path: Path
) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("no Node.js here: install node and npm")
    (tmp_path / "package.json").write_text(json.dumps({"type": "module", "private": True}))
    options = ("--no-audit", "--no-fund", "--loglevel", "error")
    installed("npm", "install", *options, *PACKAGES, "@types/node@20", cwd=tmp_path)
    tools = tmp_path / "node_modules" / ".bin"
    run(tools / "openapi-typescript", document, "--output", "schema.d.ts", cwd=tmp_path)
    (tmp_path / "caller.ts").write_text(TYPESCRIPT_CALLER)
    compiler = (tools / "tsc", "--strict", "--module", "nodenext", "--target", "es2022")
    run(*compiler, "--types", "node", "--skipLibCheck", "caller.ts", cwd=tmp_path)
    assert "Hello from TypeScript" in run("node", "caller.js", shim, cwd=tmp_path)
