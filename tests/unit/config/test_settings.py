"""Settings: where they come from, and which source wins."""

import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic_settings import BaseSettings

from clasper_worker.config.groups import QueueGroup
from clasper_worker.config.settings import Settings, load_settings, read_running_stack
from clasper_worker.engine.queue.policy import ScheduleRules
from clasper_worker.errors import ConfigurationError

REPO = Path(__file__).parents[3]


def write_stack(folder: Path, pid: int, **environment: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "stack.json").write_text(json.dumps({"pid": pid, "environment": environment}))


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_environment_wins_over_env_file_over_running_stack_over_default(
    cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().llm_model_default == "gpt-4o-mini"
    write_stack(cwd / ".clasper", os.getpid(), LLM_MODEL_DEFAULT="stack", USER_ID="stack")
    assert load_settings().llm_model_default == "stack"
    (cwd / ".env").write_text("LLM_MODEL_DEFAULT=file\n")
    assert load_settings().llm_model_default == "file"
    monkeypatch.setenv("LLM_MODEL_DEFAULT", "environment")
    assert load_settings().llm_model_default == "environment"
    assert load_settings().user_id == "stack"


def test_a_stack_that_is_gone_is_ignored(cwd: Path) -> None:
    write_stack(cwd / ".clasper", 2**22 + 1, USER_ID="stack")
    assert load_settings().user_id is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": null}'])
def test_a_broken_state_file_is_ignored(cwd: Path, text: str) -> None:
    (cwd / "stack.json").write_text(text)
    assert read_running_stack(cwd) is None


def test_an_empty_variable_is_as_if_unset(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLASPER_PORT", "")
    assert load_settings().clasper_port == 8081


def test_a_bad_value_names_its_variable_and_does_not_show_it(
    cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLASPER_PORT", "hunter2")
    monkeypatch.setenv("BACKEND_URL", "localhost:8000")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert "CLASPER_PORT" in str(caught.value)
    assert "BACKEND_URL: " in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "BACKEND_URL: must start with http:// or https://" in str(caught.value)


def test_a_group_alone_needs_no_environment_and_all_settings_are_each_group(
    cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLASPER_LANE_DEPTH", "7")
    assert ScheduleRules.from_settings(QueueGroup(clasper_lane_depth=3)).lane_depth == 3
    assert ScheduleRules.from_settings(load_settings()).lane_depth == 7


def test_every_setting_but_the_state_directory_belongs_to_one_group() -> None:
    groups = [base for base in Settings.__bases__ if issubclass(base, BaseModel)]
    groups.remove(BaseSettings)
    fields = Counter(name for group in groups for name in group.model_fields)
    assert set(fields.values()) == {1}
    assert Settings.model_fields.keys() - fields.keys() == {"clasper_state_dir"}


def test_secrets_do_not_show(cwd: Path) -> None:
    names = [
        name for name in Settings.model_fields if re.search("_(key|secret|token|password)$", name)
    ]
    assert {"agent_jwt_secret", "openai_api_key", "clasper_sentinel_password"} <= set(names)
    settings = load_settings(**dict.fromkeys(names, "hunter2"))
    assert "hunter2" not in repr(settings)


def test_redis_urls_default_to_the_brokers(cwd: Path) -> None:
    settings = load_settings(celery_broker_url="redis://r:1/2")
    assert settings.result_backend_url == settings.redis_url == "redis://r:1/2"
    on_rabbit = load_settings(celery_broker_url="amqp://r", celery_result_backend="redis://s")
    assert on_rabbit.redis_url == "redis://s"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("rediss://r/0", "rediss://r/0?ssl_cert_reqs=required"),
        ("rediss://r/0?a=b", "rediss://r/0?a=b&ssl_cert_reqs=required"),
        ("rediss://r?ssl_cert_reqs=CERT_NONE&a=b", "rediss://r?ssl_cert_reqs=none&a=b"),
        ("rediss://r?ssl_cert_reqs=optional", "rediss://r?ssl_cert_reqs=optional"),
        ("redis://r/0", "redis://r/0"),
    ],
)
def test_a_certificate_is_checked_unless_the_url_says_otherwise(
    cwd: Path, given: str, kept: str
) -> None:
    for name in ("celery_broker_url", "celery_result_backend", "clasper_redis_url"):
        assert getattr(load_settings(**{name: given}), name) == kept


@pytest.mark.parametrize("url", ["http://r:1", "localhost:6379", "redis.example", "rediz://r"])
def test_a_broker_that_nothing_speaks_to_is_refused_by_name(cwd: Path, url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"CELERY_BROKER_URL: must start with redis://"):
        load_settings(celery_broker_url=url)


@pytest.mark.parametrize(
    "url",
    [
        "memory://",
        "amqp://r//",
        "pyamqp://r",
        "amqps://r",
        "sentinel://a:1/0;sentinel://b:1/0",
        "some.package:Transport://r",
        "sqla+sqlite:///x.db",
    ],
)
def test_whatever_kombu_speaks_may_be_the_broker(cwd: Path, url: str) -> None:
    assert load_settings(celery_broker_url=url).celery_broker_url == url


def test_the_env_example_explains_every_variable_and_no_other() -> None:
    lines = (REPO / ".env.example").read_text("utf-8").splitlines()
    named = {line.partition("=")[0] for line in lines if line and not line.startswith("#")}
    assert named == {name.upper() for name in Settings.model_fields}


def test_the_env_example_holds_the_defaults(cwd: Path) -> None:
    (cwd / ".env").write_text((REPO / ".env.example").read_text("utf-8"))
    assert load_settings() == Settings(_env_file=None)


def test_hosts_that_may_get_webhooks_are_a_list_in_any_case(cwd: Path) -> None:
    settings = load_settings(clasper_webhook_allowed_hosts=" Backend.example, 10.0.0.1,,[::1] ")
    assert settings.clasper_webhook_allowed_hosts == {"backend.example", "10.0.0.1", "::1"}


AROUND = [
    "{}\n",
    "{}\r\n",
    " {} ",
    "\t{}",
    "\ufeff{}",
    "{}\u200b",
    "\u00a0{}",
    '"{}"',
    "'{}'",
    '" {}\n" ',
]


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AGENT_DAEMON_API_KEY", "one,two"),
        ("AGENT_DAEMON_URL", "http://shim:8081"),
        ("AGENT_JWT_SECRET", "a secret of 32 bytes and of more"),
        ("BACKEND_URL", "https://backend.example"),
        ("CELERY_BROKER_URL", "redis://r:1/0"),
        ("CELERY_RESULT_BACKEND", "redis://r:1/1"),
        ("CLASPER_REDIS_URL", "redis://r:1/2"),
        ("CLASPER_SENTINEL_PASSWORD", "password"),
        ("INTERNAL_API_TOKEN", "token"),
        ("LLM_MODEL_DEFAULT", "gpt-4o"),
        ("OPENAI_API_KEY", "sk-1"),
        ("OPENAI_BASE_URL", "http://model/v1"),
    ],
)
def test_what_stands_around_a_value_by_accident_is_left_out(
    cwd: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, around: str
) -> None:
    monkeypatch.setenv(name, around.format(value))
    read = getattr(load_settings(), name.lower())
    assert (read.get_secret_value() if hasattr(read, "get_secret_value") else read) == value


@pytest.mark.parametrize("blank", [" ", "\n", '""', "\ufeff", "' '"])
def test_a_variable_of_blanks_is_as_if_unset(
    cwd: Path, monkeypatch: pytest.MonkeyPatch, blank: str
) -> None:
    (cwd / ".env").write_text("OPENAI_API_KEY=sk-of-the-file\n")
    monkeypatch.setenv("OPENAI_API_KEY", blank)
    monkeypatch.setenv("CELERY_RESULT_BACKEND", blank)
    settings = load_settings()
    assert settings.openai_api_key is not None
    assert settings.openai_api_key.get_secret_value() == "sk-of-the-file"
    assert settings.celery_result_backend is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_an_env_file_from_any_editor_is_read(cwd: Path, encoding: str, newline: str) -> None:
    lines = ["BACKEND_URL = https://backend.example ", 'export OPENAI_API_KEY="sk-1"', ""]
    (cwd / ".env").write_bytes(newline.join(lines).encode(encoding))
    settings = load_settings()
    assert settings.backend_url == "https://backend.example"
    assert settings.openai_api_key is not None
    assert settings.openai_api_key.get_secret_value() == "sk-1"


def test_an_env_file_that_is_no_utf_8_is_told(cwd: Path) -> None:
    (cwd / ".env").write_bytes("BACKEND_URL=http://b\n".encode("utf-16"))
    with pytest.raises(ConfigurationError, match=r"\.env is not UTF-8"):
        load_settings()


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "INTERNAL_API_TOKEN", "AGENT_DAEMON_API_KEY"])
@pytest.mark.parametrize("value", ["sk-1\nsk-2", "sk-\u201cone\u201d", "sk-1\x00"])
def test_a_key_that_no_header_can_carry_is_refused_without_its_value(
    cwd: Path, name: str, value: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}: has a line break") as caught:
        load_settings(**{name.lower(): value})
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("unix:///run/redis.sock", "unix:// cannot be used: a socket file"),
        ("redis+socket:///run/redis.sock", "redis.socket:// cannot be used: a socket file"),
        ("rediscluster://r", "rediscluster:// cannot be used: a Redis Cluster"),
        ("redis+cluster://r", "redis.cluster:// cannot be used: a Redis Cluster"),
        ("redis://r:1/0 redis://s", "has a space"),
    ],
)
@pytest.mark.parametrize(
    "name", ["CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "CLASPER_REDIS_URL"]
)
def test_a_redis_that_we_cannot_use_is_refused_by_name(
    cwd: Path, name: str, url: str, problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}: {problem}"):
        load_settings(**{name.lower(): url})


@pytest.mark.parametrize("url", ["amqp://r", "memory://", "http://r"])
def test_our_own_state_is_kept_in_redis_alone(cwd: Path, url: str) -> None:
    with pytest.raises(ConfigurationError, match="CLASPER_REDIS_URL: must start with redis://"):
        load_settings(clasper_redis_url=url)


@pytest.mark.parametrize(
    "url", ["localhost:9001", "//b", "http://", "http://:80", "http://b:x", "ftp://b"]
)
@pytest.mark.parametrize("name", ["BACKEND_URL", "OPENAI_BASE_URL", "AGENT_DAEMON_URL"])
def test_an_address_without_scheme_or_host_is_refused_by_name(
    cwd: Path, name: str, url: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}: must start with http:// or https://"):
        load_settings(**{name.lower(): url})
