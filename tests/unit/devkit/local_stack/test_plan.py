"""What `clasper up` runs, for every combination of what is configured."""

import itertools
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clasper_worker.config.settings import Settings
from clasper_worker.devkit.local_stack.plan import (
    Provisions,
    StackOptions,
    StackPlan,
    needs_of,
    plan_stack,
    proxy_exceptions,
)
from clasper_worker.devkit.local_stack.ports import StackPorts
from clasper_worker.devkit.local_stack.probes import WorkerAnswers
from clasper_worker.devkit.local_stack.process import Layer, ProcessSpec
from clasper_worker.devkit.local_stack.redis_binary import RedisBinary
from clasper_worker.devkit.local_stack.state_file import LocalSecrets
from clasper_worker.errors import ConfigurationError, StackError
from clasper_worker.llm.providers import registry
from clasper_worker.llm.providers.openai_client import OPENAI

MakeSettings = Callable[..., Settings]

BROKER = {"celery_broker_url": "redis://:broker-password@redis.example:6379/3"}
BACKEND = {"backend_url": "https://backend.example", "agent_jwt_secret": "the-operators-jwt-secret"}
MODEL = {"openai_api_key": "the-operators-model-key"}

PROVISIONS = Provisions(
    data_dir=Path("/data"),
    redis=RedisBinary("/usr/bin/redis-server", "7.2.4", "system"),
    secrets=LocalSecrets("made-jwt-secret", "made-internal-token"),
    ports=StackPorts(broker=16379, backend=19001, model=19100, shim=18081, flower=15555),
    node="clasper-1@host",
)


def plan_for(settings: Settings, options: StackOptions | None = None) -> StackPlan:
    return plan_stack(settings, needs_of(settings), PROVISIONS, options or StackOptions())


def by_name(plan: StackPlan) -> dict[str, ProcessSpec]:
    return {spec.name: spec for spec in plan.processes}


@pytest.mark.parametrize(
    ("broker", "backend", "model"), list(itertools.product((False, True), repeat=3))
)
def test_the_stack_brings_exactly_the_servers_that_are_not_configured(
    settings_of: MakeSettings, broker: bool, backend: bool, model: bool
) -> None:
    given: dict[str, Any] = {
        **(BROKER if broker else {}),
        **(BACKEND if backend else {}),
        **(MODEL if model else {}),
    }

    plan = plan_for(settings_of(**given))

    brought = {name for name in by_name(plan) if name in ("redis", "backend", "model")}
    assert brought == {
        name
        for name, configured in (("redis", broker), ("backend", backend), ("model", model))
        if not configured
    }
    assert {"worker", "beat", "shim", "flower"} <= set(by_name(plan))
    assert ("AGENT_JWT_SECRET" in plan.environment) is not backend
    assert ("OPENAI_API_KEY" in plan.environment) is not model


def test_webhooks_may_go_to_this_machine_while_nobody_else_can_ask_for_one(
    settings_of: MakeSettings,
) -> None:
    def allowed(**given: str) -> str | None:
        return plan_for(settings_of(**given)).environment.get("CLASPER_WEBHOOK_ALLOWED_HOSTS")

    own = allowed(clasper_webhook_allowed_hosts="inside.example")
    assert own == "127.0.0.1,::1,inside.example,localhost"
    assert allowed(clasper_host="0.0.0.0", agent_daemon_api_key="k") is None


def test_without_any_configuration_everything_points_at_the_stacks_own_servers(
    settings_of: MakeSettings,
) -> None:
    assert dict(plan_for(settings_of()).environment) == {
        "CELERY_BROKER_URL": "redis://127.0.0.1:16379/0",
        "BACKEND_URL": "http://127.0.0.1:19001",
        "AGENT_DAEMON_URL": "http://127.0.0.1:18081",
        "CLASPER_DEFAULT_TASK": "Agent Thread",
        "CLASPER_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1,::1,localhost",
        "AGENT_JWT_SECRET": "made-jwt-secret",
        "INTERNAL_API_TOKEN": "made-internal-token",
        "OPENAI_BASE_URL": "http://127.0.0.1:19100/v1",
        "OPENAI_API_KEY": "offline",
        "LLM_MODEL_DEFAULT": "clasper-offline",
    }


def test_what_the_operator_configured_stays_as_it_is(settings_of: MakeSettings) -> None:
    settings = settings_of(
        **BROKER,
        **BACKEND,
        **MODEL,
        celery_result_backend="redis://results.example/1",
        clasper_redis_url="redis://state.example/2",
        clasper_default_task="Inbox",
        agent_daemon_url="https://shim.example",
    )

    assert dict(plan_for(settings).environment) == {
        "CELERY_BROKER_URL": "redis://:broker-password@redis.example:6379/3",
        "CELERY_RESULT_BACKEND": "redis://results.example/1",
        "CLASPER_REDIS_URL": "redis://state.example/2",
        "BACKEND_URL": "https://backend.example",
        "AGENT_DAEMON_URL": "https://shim.example",
        "CLASPER_DEFAULT_TASK": "Inbox",
        "CLASPER_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1,::1,localhost",
    }


def test_the_operators_secrets_are_not_written_for_other_commands(
    settings_of: MakeSettings,
) -> None:
    settings = settings_of(
        agent_jwt_secret="the-operators-jwt-secret",  # for the reference backend
        internal_api_token="the-operators-token",
        **MODEL,
    )

    written = plan_for(settings).environment

    assert "the-operators" not in str(dict(written))
    assert "AGENT_JWT_SECRET" not in written


def test_a_backend_without_its_secret_is_refused_naming_the_variable(
    settings_of: MakeSettings,
) -> None:
    with pytest.raises(ConfigurationError, match="AGENT_JWT_SECRET") as caught:
        needs_of(settings_of(backend_url="https://backend.example"))

    assert caught.value.details == {"variable": "AGENT_JWT_SECRET"}


def test_a_base_url_alone_means_a_model_is_there(settings_of: MakeSettings) -> None:
    settings = settings_of(openai_base_url="http://localhost:11434/v1")

    plan = plan_for(settings)

    assert "model" not in by_name(plan)
    assert plan.urls["model"] == "http://localhost:11434/v1"


def test_another_provider_is_not_replaced_by_the_offline_model(settings_of: MakeSettings) -> None:
    assert needs_of(settings_of(llm_provider="anthropic")).model is False


def test_the_offline_model_comes_only_where_a_configured_model_is_openais(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = replace(OPENAI, name="acme", key_variables=(), url_variable=None)
    monkeypatch.setitem(registry._BY_NAME, "acme", acme)
    assert needs_of(settings_of(llm_model_default="acme/a")).model is False
    assert needs_of(settings_of(llm_model_default="acme/a", llm_model_best="b")).model is True


def test_a_model_name_that_the_operator_chose_is_kept_offline_too(
    settings_of: MakeSettings,
) -> None:
    plan = plan_for(settings_of(llm_model_default="my-model"))

    assert "LLM_MODEL_DEFAULT" not in plan.environment


def test_without_a_redis_server_the_error_says_how_to_get_one(settings_of: MakeSettings) -> None:
    settings = settings_of()
    nothing = Provisions(Path("/data"), None, PROVISIONS.secrets, PROVISIONS.ports, PROVISIONS.node)

    with pytest.raises(StackError, match="CELERY_BROKER_URL"):
        plan_stack(settings, needs_of(settings), nothing, StackOptions())


@pytest.mark.parametrize("name", ["flower", "beat"])
def test_flower_and_beat_can_be_left_out(settings_of: MakeSettings, name: str) -> None:
    options = StackOptions(flower=name != "flower", beat=name != "beat")

    assert name not in by_name(plan_for(settings_of(), options))


def test_flower_listens_on_the_loopback_alone(settings_of: MakeSettings) -> None:
    command = by_name(plan_for(settings_of()))["flower"].command

    assert "--address=127.0.0.1" in command
    assert "--port=15555" in command


def test_redis_keeps_every_write_and_evicts_nothing(settings_of: MakeSettings) -> None:
    command = by_name(plan_for(settings_of()))["redis"].command

    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--bind"] == "127.0.0.1"
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "everysec"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--dir"] == "/data/redis"


def test_the_backend_keeps_its_data_in_the_state_folder(settings_of: MakeSettings) -> None:
    assert by_name(plan_for(settings_of()))["backend"].command[-2:] == (
        "--database",
        "/data/backend.db",
    )


def test_an_ephemeral_backend_keeps_its_data_in_memory(settings_of: MakeSettings) -> None:
    plan = plan_for(settings_of(), StackOptions(ephemeral=True))

    assert by_name(plan)["backend"].command[-1] == ":memory:"


def test_the_workers_concurrency_is_passed_on_only_when_given(settings_of: MakeSettings) -> None:
    plain = by_name(plan_for(settings_of()))["worker"].command
    chosen = by_name(plan_for(settings_of(), StackOptions(concurrency=7)))["worker"].command

    assert "--concurrency" not in plain
    assert chosen == (*plain, "--concurrency", "7")


def test_the_worker_is_one_process_unless_told_otherwise(settings_of: MakeSettings) -> None:
    plain = by_name(plan_for(settings_of()))["worker"]
    four = by_name(plan_for(settings_of(), StackOptions(processes=4)))["worker"]

    assert plain.command[4:6] == ("--processes", "1")
    assert four.command[4:6] == ("--processes", "4")
    assert isinstance(four.ready, WorkerAnswers)
    assert four.ready.processes == 4


def test_our_own_processes_run_with_this_python(settings_of: MakeSettings) -> None:
    plan = plan_for(settings_of())

    assert {spec.command[0] for spec in plan.processes if spec.name != "redis"} == {sys.executable}


@pytest.mark.parametrize(
    ("configured", "expected"), [({}, "console"), ({"clasper_log_format": "json"}, "json")]
)
def test_the_processes_log_for_people_unless_told_otherwise(
    settings_of: MakeSettings, configured: Mapping[str, str], expected: str
) -> None:
    plan = plan_for(settings_of(**configured))

    assert by_name(plan)["worker"].environment["CLASPER_LOG_FORMAT"] == expected
    assert by_name(plan)["worker"].environment["PYTHONUNBUFFERED"] == "1"


def test_the_worker_outlives_the_front_and_redis_outlives_all(settings_of: MakeSettings) -> None:
    layer = {name: spec.layer for name, spec in by_name(plan_for(settings_of())).items()}

    assert layer["shim"] == layer["beat"] == layer["flower"] == max(Layer)
    assert layer["shim"] > layer["worker"] > layer["model"] > layer["backend"] > layer["redis"]


def test_addresses_hold_no_password(settings_of: MakeSettings) -> None:
    plan = plan_for(settings_of(**BROKER))

    assert plan.urls["broker"] == "redis://:**@redis.example:6379/3"
    assert "broker-password" not in repr(plan)


def test_no_secret_shows_in_the_plans_repr(settings_of: MakeSettings) -> None:
    plan = plan_for(settings_of())

    assert "made-" not in repr(plan)
    assert "made-" not in repr(PROVISIONS)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:18081"),
        ("0.0.0.0", "http://127.0.0.1:18081"),
        ("::", "http://127.0.0.1:18081"),
        ("::1", "http://[::1]:18081"),
        ("10.0.0.5", "http://10.0.0.5:18081"),
    ],
)
def test_the_shims_address_can_be_opened_on_this_machine(
    settings_of: MakeSettings, host: str, url: str
) -> None:
    assert plan_for(settings_of(clasper_host=host)).urls["shim"] == url


def test_without_a_proxy_nothing_is_said_about_proxies() -> None:
    assert proxy_exceptions({"PATH": "/bin"}) == {}


def test_with_a_proxy_the_stacks_own_servers_are_reached_directly() -> None:
    expected = "intranet,127.0.0.1,localhost"

    assert proxy_exceptions({"HTTP_PROXY": "http://proxy:3128", "no_proxy": "intranet"}) == {
        "no_proxy": expected,
        "NO_PROXY": expected,
    }
