"""What a person sees once the stack is ready."""

import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from clasper_worker.config.settings import Settings
from clasper_worker.devkit.local_stack.banner import banner, first_command, first_try
from clasper_worker.devkit.local_stack.console import StackConsole
from clasper_worker.devkit.local_stack.plan import Provisions, StackOptions, needs_of, plan_stack
from clasper_worker.devkit.local_stack.ports import USUAL_PORTS
from clasper_worker.devkit.local_stack.redis_binary import RedisBinary
from clasper_worker.devkit.local_stack.state_file import LocalSecrets

SERVER = RedisBinary("/usr/bin/redis-server", "7.2.4", "system")
FAKE = RedisBinary("/usr/bin/python", "", "fake")


def shown(
    settings: Settings, redis: RedisBinary | None = SERVER, options: StackOptions | None = None
) -> str:
    options = options or StackOptions()
    needs = needs_of(settings)
    provisions = Provisions(
        Path(".clasper"), redis, LocalSecrets("jwt-secret", "token"), USUAL_PORTS, "n@host"
    )
    plan = plan_stack(settings, needs, provisions, options)
    out = StringIO()
    console = StackConsole(out, ["shim"])
    console.show(banner(settings, needs, provisions, options, plan))
    console.show(first_try(), wrap=False)
    return out.getvalue()


def test_it_tells_where_everything_is_and_what_to_try(settings_of: Callable[..., Settings]) -> None:
    text = shown(settings_of())

    for address in (
        "http://127.0.0.1:8081",
        "http://127.0.0.1:9001",
        "http://127.0.0.1:9100/v1",
        "redis://127.0.0.1:6379/0",
        "http://127.0.0.1:5555",
    ):
        assert address in text
    assert 'send --user u1 "Hello"' in text
    assert "offline" in text
    assert "redis-server 7.2.4" in text


def test_it_shows_no_secret(settings_of: Callable[..., Settings]) -> None:
    given: dict[str, Any] = {
        "celery_broker_url": "redis://:pa55word@redis.example/0",
        "openai_api_key": "sk-key",
        "internal_api_token": "the-token",
    }

    text = shown(settings_of(**given), redis=None)

    for secret in ("pa55word", "sk-key", "the-token", "jwt-secret"):
        assert secret not in text


def test_what_is_configured_is_called_so(settings_of: Callable[..., Settings]) -> None:
    text = shown(
        settings_of(
            celery_broker_url="redis://redis.example/0",
            backend_url="https://backend.example",
            agent_jwt_secret="x",
            openai_api_key="k",
        ),
        redis=None,
    )

    assert "yours (CELERY_BROKER_URL)" in text
    assert "yours (BACKEND_URL)" in text
    assert "openai, gpt-4o-mini" in text
    assert "offline" not in text


def test_a_broker_in_memory_is_called_so(settings_of: Callable[..., Settings]) -> None:
    assert "lost when this stops" in shown(settings_of(), redis=FAKE)


def test_an_ephemeral_backend_is_called_so(settings_of: Callable[..., Settings]) -> None:
    assert "data in memory" in shown(settings_of(), options=StackOptions(ephemeral=True))


def test_no_line_ends_in_blanks(settings_of: Callable[..., Settings]) -> None:
    lines = shown(settings_of()).splitlines()

    assert lines == [line.rstrip() for line in lines]


def test_the_first_command_works_in_another_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / ".venv" / "bin" / "clasper"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    monkeypatch.delenv("CLASPER_STATE_DIR")
    monkeypatch.chdir(tmp_path)

    monkeypatch.setenv("PATH", "/nowhere")
    assert first_command() == '.venv/bin/clasper send --user u1 "Hello"'
    monkeypatch.setenv("PATH", str(program.parent))
    assert first_command() == 'clasper send --user u1 "Hello"'
    monkeypatch.setenv("CLASPER_STATE_DIR", "elsewhere")
    assert first_command() == 'CLASPER_STATE_DIR=elsewhere clasper send --user u1 "Hello"'
