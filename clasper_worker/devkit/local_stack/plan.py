"""What runs, with which environment: decided from settings alone, before anything is started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clasper_worker.config.settings import Settings
from clasper_worker.devkit.local_stack.ports import LOOPBACK, StackPorts
from clasper_worker.devkit.local_stack.process import ProcessSpec
from clasper_worker.devkit.local_stack.processes import (
    backend_process,
    beat_process,
    flower_process,
    offline_model_process,
    redis_process,
    shim_process,
    worker_process,
)
from clasper_worker.devkit.local_stack.redis_binary import NO_SERVER, RedisBinary, redis_url
from clasper_worker.devkit.local_stack.state_file import LocalSecrets
from clasper_worker.engine.http.listening import is_loopback
from clasper_worker.engine.redis.connections import shown_url
from clasper_worker.errors import ConfigurationError, StackError
from clasper_worker.llm.providers.catalogue import providers_without_key
from clasper_worker.llm.providers.openai_client import OPENAI

OFFLINE_KEY = "offline"
OFFLINE_MODEL = "clasper-offline"
DEFAULT_TASK = "Agent Thread"


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What the operator asked of ``clasper up``.

    Attributes:
        flower: whether Flower runs.
        beat: whether Beat runs.
        processes: of the worker.
        concurrency: of each process, in turns; None: the worker's own default.
        ephemeral: whether the backend keeps its data in memory.
    """

    flower: bool = True
    beat: bool = True
    processes: int = 1
    concurrency: int | None = None
    ephemeral: bool = False


@dataclass(frozen=True, slots=True)
class StackNeeds:
    """Which servers the settings do not name, so that the stack brings its own."""

    broker: bool
    backend: bool
    model: bool


@dataclass(frozen=True, slots=True)
class Provisions:
    """What was found or made on this machine for the plan.

    Attributes:
        data_dir: where the stack's own servers keep their data.
        redis: the server to run, where a broker is needed.
        secrets: of the stack's own backend, where one is needed.
        ports: on 127.0.0.1.
        node: the worker's Celery node name.
        proxy_exceptions: see :func:`proxy_exceptions`.
    """

    data_dir: Path
    redis: RedisBinary | None
    secrets: LocalSecrets | None
    ports: StackPorts
    node: str
    proxy_exceptions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StackPlan:
    """What to run and what to tell.

    Attributes:
        processes: to run.
        environment: the settings by which other commands reach the stack; may hold secrets.
        urls: its addresses, without secrets.
    """

    processes: tuple[ProcessSpec, ...]
    environment: Mapping[str, str] = field(repr=False)
    urls: Mapping[str, str]


def needs_of(settings: Settings) -> StackNeeds:
    """Which servers the stack must bring itself.

    Raises:
        ConfigurationError: a backend is named, but not the secret to sign agent tokens with; or
            a model's name cannot be used.
    """
    if settings.backend_url and settings.agent_jwt_secret is None:
        raise ConfigurationError(
            "BACKEND_URL is set but AGENT_JWT_SECRET is not: agents could not sign in to your "
            "backend. Set it to the backend's own, in the environment or .env.",
            {"variable": "AGENT_JWT_SECRET"},
        )
    return StackNeeds(
        broker="celery_broker_url" not in settings.model_fields_set,
        backend=settings.backend_url is None,
        model=settings.llm_provider == "openai" and OPENAI in providers_without_key(settings),
    )


def plan_stack(
    settings: Settings, needs: StackNeeds, provisions: Provisions, options: StackOptions
) -> StackPlan:
    """Every process, and every variable that the stack adds to the operator's own.

    Raises:
        StackError: a broker is needed, and there is no Redis server to run.
    """
    environment = _environment(settings, needs, provisions)
    urls = _urls(settings, provisions, environment)
    processes = _processes(needs, provisions, options, environment, urls["shim"], settings)
    return StackPlan(tuple(processes), environment, urls)


def proxy_exceptions(inherited: Mapping[str, str]) -> dict[str, str]:
    """Variables that keep calls to the stack's own servers away from a proxy, where one is set."""
    if not any(name.lower() in ("http_proxy", "all_proxy") for name in inherited):
        return {}
    present = inherited.get("no_proxy") or inherited.get("NO_PROXY")
    exceptions = ",".join(filter(None, (present, LOOPBACK, "localhost")))
    return {"no_proxy": exceptions, "NO_PROXY": exceptions}


def _environment(settings: Settings, needs: StackNeeds, provisions: Provisions) -> dict[str, str]:
    """The variables by which the stack's processes and other commands find one another.

    The operator's own secrets are not among them: the processes inherit those, and they are not
    written to the state file.
    """
    ports = provisions.ports
    shim_url = _shim_url(settings.clasper_host, ports.shim)
    optional = {
        "CELERY_RESULT_BACKEND": settings.celery_result_backend,
        "CLASPER_REDIS_URL": settings.clasper_redis_url,
        "CLASPER_DEFAULT_TASK": settings.clasper_default_task or DEFAULT_TASK,
    }
    if is_loopback(settings.clasper_host):
        # Whoever may ask for a turn is on this machine, and so are the receivers that they try.
        hosts = settings.clasper_webhook_allowed_hosts | {LOOPBACK, "localhost", "::1"}
        optional["CLASPER_WEBHOOK_ALLOWED_HOSTS"] = ",".join(sorted(hosts))
    if needs.backend and provisions.secrets:
        if settings.agent_jwt_secret is None:
            optional["AGENT_JWT_SECRET"] = provisions.secrets.agent_jwt_secret
        if settings.internal_api_token is None:
            optional["INTERNAL_API_TOKEN"] = provisions.secrets.internal_api_token
    if needs.model:
        optional["OPENAI_BASE_URL"] = f"http://{LOOPBACK}:{ports.model}/v1"
        optional["OPENAI_API_KEY"] = OFFLINE_KEY
        if "llm_model_default" not in settings.model_fields_set:
            optional["LLM_MODEL_DEFAULT"] = OFFLINE_MODEL
    return {
        "CELERY_BROKER_URL": redis_url(ports.broker)
        if needs.broker
        else settings.celery_broker_url,
        "BACKEND_URL": settings.backend_url or f"http://{LOOPBACK}:{ports.backend}",
        "AGENT_DAEMON_URL": settings.agent_daemon_url or shim_url,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _urls(
    settings: Settings, provisions: Provisions, environment: Mapping[str, str]
) -> dict[str, str]:
    """The stack's addresses, for people and programs."""
    urls = {
        "shim": _shim_url(settings.clasper_host, provisions.ports.shim),
        "backend": environment["BACKEND_URL"],
        "broker": shown_url(environment["CELERY_BROKER_URL"]),
    }
    if model := environment.get("OPENAI_BASE_URL", settings.openai_base_url):
        urls["model"] = model
    if provisions.ports.flower:
        urls["flower"] = f"http://{LOOPBACK}:{provisions.ports.flower}"
    return urls


def _processes(
    needs: StackNeeds,
    provisions: Provisions,
    options: StackOptions,
    environment: Mapping[str, str],
    shim_url: str,
    settings: Settings,
) -> Iterator[ProcessSpec]:
    """The processes, in the order of the log's colours."""
    data_dir, ports = provisions.data_dir, provisions.ports
    log_format = settings.clasper_log_format
    inherited = {
        **environment,
        "CLASPER_LOG_FORMAT": "console" if log_format == "auto" else log_format,
        "PYTHONUNBUFFERED": "1",
        **provisions.proxy_exceptions,
    }
    if needs.broker:
        if provisions.redis is None:
            raise StackError(NO_SERVER)
        yield redis_process(provisions.redis, ports.broker, data_dir / "redis")
    if needs.backend:
        database = ":memory:" if options.ephemeral else str(data_dir / "backend.db")
        yield backend_process(ports.backend, database, inherited)
    if needs.model:
        yield offline_model_process(ports.model, inherited)
    yield worker_process(
        provisions.node,
        environment["CELERY_BROKER_URL"],
        options.processes,
        options.concurrency,
        inherited,
    )
    if options.beat:
        yield beat_process(inherited)
    yield shim_process(ports.shim, shim_url, inherited)
    if options.flower:
        yield flower_process(ports.flower, inherited)


def _shim_url(host: str, port: int) -> str:
    """The shim's address as seen from this machine."""
    if host in ("0.0.0.0", "::", "localhost"):
        host = LOOPBACK
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
