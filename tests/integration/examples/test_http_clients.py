"""The examples in other languages, each as a program of its own, against a real shim."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from uuid import uuid4

import pytest

from clasper_worker.webhooks.signature import sign
from tests.integration.connected import Connected
from tests.network import network_to
from tests.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.needs_services]

EXAMPLES = Path(__file__).parents[3] / "examples"
COMMANDS = {
    "node": ("node", str(EXAMPLES / "node" / "client.mjs")),
    "go": ("go", "build", "-o"),
    "php": ("php", str(EXAMPLES / "php" / "client.php")),
    "curl": ("bash", str(EXAMPLES / "curl" / "client.sh")),
}
TOOLS = {"curl": ("bash", "curl", "jq", "openssl")}
SECRET = "a secret, shared"


@pytest.fixture(scope="module", params=COMMANDS)
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, ...]:
    """The command of one language's client."""
    language: str = request.param
    for tool in TOOLS.get(language, (language,)):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} here: install it")
    if language != "go":
        return COMMANDS[language]
    folder = tmp_path_factory.mktemp("go")
    program = folder / "client"
    environment = {**os.environ, "GOCACHE": str(folder / "cache"), "GOTOOLCHAIN": "local"}
    source = EXAMPLES / "go" / "client.go"
    command = [*COMMANDS["go"], str(program), str(source)]
    subprocess.run(command, check=True, env=environment, cwd=folder, timeout=300)
    return (str(program),)


def environment_of(stack: Connected, url: str | None = None) -> dict[str, str]:
    return {**os.environ, **stack.variables, "AGENT_DAEMON_URL": url or stack.shim_url}


@pytest.fixture
def word() -> str:
    return uuid4().hex


def posted(stack: Connected, word: str) -> str:
    """The one message with this word that an agent has posted."""
    (found,) = [text for text in stack.processes.posted("u1") if word in text]
    return found


@pytest.mark.parametrize("way", ["wait", "poll", "stream"])
def test_a_turn_is_sent_and_its_reply_comes(
    stack: Connected, client: tuple[str, ...], word: str, way: str
) -> None:
    done = subprocess.run(
        [*client, way, f"Say {word} again"],
        env=environment_of(stack),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == posted(stack, word) + "\n"


def test_a_stream_that_is_cut_goes_on_and_repeats_nothing(
    stack: Connected, client: tuple[str, ...], word: str
) -> None:
    with network_to(stack.shim_url) as network:
        program = subprocess.Popen(
            [*client, "stream", f"Say {word} again"],
            env=environment_of(stack, network.url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # `communicate` reads past what Python has buffered
        )
        assert program.stdout is not None
        first = program.stdout.read(1)
        network.cut()
        until(lambda: network.refused, "the client tries to connect again")
        network.restore()
        rest, problems = program.communicate(timeout=120)
    assert program.returncode == 0, problems
    assert (first + rest).decode() == posted(stack, word) + "\n"


def test_a_refusal_is_told_and_fails(stack: Connected, client: tuple[str, ...]) -> None:
    wrong = {**environment_of(stack), "AGENT_DAEMON_API_KEY": "wrong"}
    for way in ("wait", "stream"):
        done = subprocess.run(
            [*client, way, "Hello"],
            env=wrong,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode != 0
        assert "unauthorized" in done.stderr + done.stdout


def test_a_webhook_s_signature_is_verified(client: tuple[str, ...]) -> None:
    body = '{"event": "agent.completed", "response": "Grüße\\n"}\n'.encode()
    now = int(time.time())
    good = sign(SECRET, body, now)
    cases = {
        (good, body): True,
        (f"v1={'0' * 64},{good}", body): True,  # while a secret is changed
        (good, body + b" "): False,
        (sign("another secret", body, now), body): False,
        (sign(SECRET, body, now - 3600), body): False,
        (sign(SECRET, body, now + 3600), body): False,
        (good.replace(f"t={now}", f"t={now - 1}"), body): False,
        (good.partition(",")[0], body): False,
        ("", body): False,
        ("t=x,v1=y", body): False,
        ("t=,v1=,=,", body): False,
    }
    for (header, sent), is_good in cases.items():
        done = subprocess.run(
            [*client, "verify", SECRET, header],
            input=sent,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode == 0) is is_good, (header, done.stdout, done.stderr)
        assert (done.stdout == b"good\n") is is_good
