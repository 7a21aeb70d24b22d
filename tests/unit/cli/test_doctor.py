"""``clasper doctor``: each probe's findings, and the time that they may take together."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from click.testing import CliRunner

from clasper_worker.cli import doctor
from clasper_worker.cli import doctor_probes as probes
from clasper_worker.cli.doctor import command, look
from clasper_worker.cli.doctor_probes import Finding
from clasper_worker.config.settings import Settings
from clasper_worker.devkit.local_stack.redis_server import RunningRedis
from clasper_worker.llm.dialect import Dialect
from clasper_worker.llm.providers import openai_client, registry
from clasper_worker.llm.providers.openai_client import OPENAI
from tests.broken_backend import BREAKAGES, SECRET, Inner, Request, Response, serving

Make = Callable[..., Settings]


def levels(found: Iterator[Finding]) -> dict[str, list[str]]:
    sorted_: dict[str, list[str]] = {}
    for one in found:
        assert one.what
        assert one.fix or one.level == "ok"
        sorted_.setdefault(one.level, []).append(one.what)
    return sorted_


@pytest.fixture(autouse=True)
def _no_end_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_leave_at_once", sys.exit)


def test_probes_that_hang_are_findings_after_those_they_had(settings_of: Make) -> None:
    until = threading.Event()

    def hanging(settings: Settings) -> Iterator[Finding]:
        del settings
        yield Finding("hanging", "ok", "before")
        until.wait(600)

    def quick(settings: Settings) -> Iterator[Finding]:
        del settings
        yield Finding("quick", "ok", "there")

    found, hangs = look(settings_of(), (hanging, hanging, quick), seconds=0.2)
    assert hangs
    until.set()
    assert [(one.part, one.level) for one in found][:4] == [
        ("hanging", "ok"),
        ("hanging", "problem"),
        ("hanging", "ok"),
        ("hanging", "problem"),
    ]


HANGING = """
import concurrent.futures, sys, threading
from clasper_worker.cli import doctor
from clasper_worker.cli.doctor_probes import Finding

def name_server(settings):
    # As an event loop looks names up: the interpreter waits for such threads at its end.
    yield Finding("name", "ok", "before")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        pool.submit(threading.Event().wait).result()

doctor.PROBES = (name_server,)
doctor._SECONDS = 0.5
doctor.command(["--json"])
"""


def test_a_probe_that_never_returns_does_not_keep_the_command_from_ending() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1, ended.stderr
    levels = [one["level"] for one in json.loads(ended.stdout)["findings"]]
    assert levels == ["ok", "problem"]


def test_a_probe_that_fails_is_a_problem_without_the_text_of_the_error(settings_of: Make) -> None:
    def failing(settings: Settings) -> Iterator[Finding]:
        raise ValueError("redis://:secret@host")
        yield Finding("", "ok", str(settings))

    ((found,), hangs) = look(settings_of(), (failing,))
    assert not hangs
    assert found.level == "problem"
    assert "secret" not in found.what


def test_nothing_configured_is_exit_code_1_and_names_what_to_set() -> None:
    result = CliRunner().invoke(command, ["--json"])
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["status"] == "problem"
    assert "BACKEND_URL" in result.stdout
    parts = {one["part"] for one in told["findings"]}
    assert {"configuration", "redis", "workers", "beat", "backend", "workspace", "model"} <= parts


def test_a_setting_that_cannot_be_read_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLASPER_PORT", "seventy")
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 1
    assert "CLASPER_PORT" in result.output


def test_redis_version_and_doubts(redis_server: RunningRedis, settings_of: Make) -> None:
    settings = settings_of(celery_broker_url=redis_server.url)
    found = levels(probes.redis_servers(settings))
    assert "version" in found["ok"][0]
    assert "problem" not in found


def test_a_redis_user_without_rights_is_a_problem(
    redis_server: RunningRedis, settings_of: Make
) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.execute_command(
            "ACL", "SETUSER", "weak", "on", ">pw", "~*", "+ping", "+info", "+time"
        )
        try:
            url = redis_server.url.replace("://", "://weak:pw@")
            told = levels(probes.redis_servers(settings_of(celery_broker_url=url)))
        finally:
            client.execute_command("ACL", "DELUSER", "weak")
    assert "NOPERM" in told["problem"][0] or "refused" in told["problem"][0]
    assert "pw" not in str(told)


class FakeRedis:
    """A server with other figures."""

    def __init__(self, ahead: float = 0, **info: Any) -> None:
        self._ahead = ahead
        self._info = {"redis_version": "7.2.0", "aof_enabled": 1, **info}

    def set(self, *_: Any, **__: Any) -> None: ...

    def eval(self, *_: Any) -> None: ...

    def info(self) -> dict[str, Any]:
        return self._info

    def time(self) -> tuple[int, int]:
        return int(time.time() + self._ahead), 0


@pytest.mark.parametrize(
    ("server", "level", "word"),
    [
        (FakeRedis(redis_version="6.0.16"), "problem", "6.0.16"),
        (FakeRedis(aof_enabled=0), "warning", "append-only"),
        (FakeRedis(maxmemory_policy="allkeys-lru"), "warning", "allkeys-lru"),
        (FakeRedis(maxmemory=100, used_memory=95), "warning", "95%"),
        (FakeRedis(ahead=60), "warning", "clock"),
    ],
)
def test_each_doubt_of_a_redis_is_found(server: FakeRedis, level: str, word: str) -> None:
    found = levels(probes._redis(server, "here"))
    assert any(word in what for what in found[level])


def test_beat_is_missing_late_or_well(redis_server: RunningRedis, settings_of: Make) -> None:
    settings = settings_of(celery_broker_url=redis_server.url)
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        assert "no Beat" in levels(probes.beat(settings))["warning"][0]
        client.set("clasper:redbeat::lock", "x")
        client.zadd("clasper:redbeat::schedule", {"dispatch": time.time() - 100})
        assert "behind" in levels(probes.beat(settings))["problem"][0]
        client.zadd("clasper:redbeat::schedule", {"dispatch": time.time() + 1})
        assert set(levels(probes.beat(settings))) == {"ok"}
        client.flushall()


def test_no_worker_is_a_warning_while_nothing_waits_and_a_problem_while_work_does(
    redis_server: RunningRedis, settings_of: Make
) -> None:
    settings = settings_of(
        celery_broker_url=redis_server.url, celery_result_backend=redis_server.url
    )
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        assert set(levels(probes.workers(settings))) == {"warning"}
        client.lpush("clasper", "{}")
        assert set(levels(probes.workers(settings))) == {"problem"}
        client.flushall()


def test_the_backend_is_asked_and_our_token_tried(settings_of: Make) -> None:
    with serving() as (broken, target):
        good = settings_of(backend_url=target.url, agent_jwt_secret=SECRET)
        assert "contract v1" in levels(probes.backend(good))["ok"][0]
        bad = settings_of(backend_url=target.url, agent_jwt_secret="another-secret-" * 4)
        assert "refuses our token" in levels(probes.backend(bad))["problem"][0]
        broken.breakage = BREAKAGES["capabilities.version"]
        assert "v9" in levels(probes.backend(good))["warning"][0]

        async def without(request: Request, inner: Inner) -> Response:
            del inner
            return Response(404 if request.path.endswith("/capabilities") else 500, b"{}")

        broken.breakage = without
        found = levels(probes.backend(good))
        assert "/capabilities" in found["warning"][0]
        assert "problem" not in found


def test_a_workspace_tells_its_roles_and_the_problems_of_skills(
    tmp_path: Path, settings_of: Make
) -> None:
    (tmp_path / "souls").mkdir()
    (tmp_path / "souls" / "writer.md").write_text("You write.")
    (tmp_path / "skills" / "broken").mkdir(parents=True)
    (tmp_path / "skills" / "broken" / "SKILL.md").write_text("---\nname: [\n---\n")
    found = levels(probes.workspace(settings_of(clasper_workspace=tmp_path)))
    assert "writer" in found["ok"][0]
    assert any("skills/broken" in what for what in found["warning"])


def test_a_model_without_a_key_is_a_problem_and_no_key_is_shown(settings_of: Make) -> None:
    assert "no key of openai" in levels(probes.model_key(settings_of()))["problem"][0]
    told = levels(probes.model_key(settings_of(openai_api_key="sk-very-secret")))
    assert set(told) == {"ok"}
    assert "sk-very" not in str(told)


def test_the_model_is_asked_of_its_own_provider_once_and_briefly(
    settings_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        asked.append((str(request.url), body["model"]))
        assert body["max_tokens"] == 16
        return httpx2.Response(503, json={"error": {"message": "later"}})

    def client(_: float, server: str) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.MockTransport(answer), base_url=server)

    acme = replace(
        OPENAI,
        name="acme",
        base_url="https://api.acme.test",
        url_variable=None,
        dialect=Dialect(),
    )
    monkeypatch.setattr(openai_client, "open_http_client", client)
    monkeypatch.setitem(registry._BY_NAME, "acme", acme)
    monkeypatch.setattr(registry, "PROVIDERS", (OPENAI, acme))
    told = levels(probes.model_call(settings_of(llm_model_default="acme/a", openai_api_key="k")))
    assert asked == [("https://api.acme.test/chat/completions", "a")]
    assert set(told) == {"problem"}
