"""Every setting, read from the environment, a ``.env`` file, or a local stack that is running.

Names are the contract's, in lower case: ``BACKEND_URL`` is ``settings.backend_url``. Precedence:
real environment variables, then ``.env`` in the working directory, then what a running
``clasper up`` wrote to its state file, then the defaults here.
"""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from clasper_worker.config.local_time import ActiveHours, check_timezone, parse_time_of_day
from clasper_worker.errors import ConfigurationError

_WORKSPACE_NAME = re.compile(r"[\w.@:-]{1,256}")
STACK_FILE = "stack.json"
SENTINEL_SCHEME = "sentinel://"
_REDIS = ("redis://", "rediss://", SENTINEL_SCHEME)
# Redis in ways that neither the scheduler nor Celery's result backend reaches it by.
_NOT_OUR_REDIS = {
    "unix": "a socket file is not supported",
    "redis+socket": "a socket file is not supported",
    "socket": "a socket file is not supported",
    "rediscluster": "a Redis Cluster is not supported: its keys lie on several servers",
    "redis+cluster": "a Redis Cluster is not supported: its keys lie on several servers",
    "redis-cluster": "a Redis Cluster is not supported: its keys lie on several servers",
    "redis+sentinel": "write sentinel://HOST:26379/0",
}
_UNSEEN = "\ufeff\u200b"
_REDIS_FORMS = "redis://, rediss:// or sentinel://"
DEFAULT_EMBEDDING_MODEL = "Xenova/all-MiniLM-L6-v2"
_LOCAL_REDIS = "redis://localhost:6379/0"


def with_certificate_check(url: str) -> str:
    """Say in a ``rediss://`` URL whether the server's certificate is checked: yes by default.

    Without a word of it Celery and kombu refuse the URL, check nothing, or, with a transport that
    is not kombu's own, do not encrypt. redis-py does not know Python's names for it.
    """
    if not url.startswith("rediss://"):
        return url
    if "ssl_cert_reqs=" not in url:
        return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"
    return re.sub(
        r"(?<=ssl_cert_reqs=)CERT_(REQUIRED|OPTIONAL|NONE)\b", lambda found: found[1].lower(), url
    )


def bare_value(text: str) -> str:
    """A variable's value without what stands around it by accident.

    White space and line breaks (a key read from a file), a byte order mark, and a pair of quotes,
    which a shell takes away, but not Docker's ``--env-file``.
    """
    text = _without_space_around(text)
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        text = _without_space_around(text[1:-1])
    return text


def _without_space_around(text: str) -> str:
    return text.strip().strip(_UNSEEN).strip()


def read_running_stack(state_dir: Path) -> dict[str, Any] | None:
    """What a running ``clasper up`` wrote about itself, or None where none runs.

    The file holds ``pid``, ``environment`` (the variables its processes got) and ``urls``. A file
    whose process is gone is ignored: a killed stack must not redirect later commands.
    """
    try:
        stack: dict[str, Any] = json.loads((state_dir / STACK_FILE).read_text("utf-8"))
        os.kill(int(stack["pid"]), 0)
    except PermissionError:
        return stack
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return stack


class _RunningStackSource(PydanticBaseSettingsSource):
    """Settings of the ``clasper up`` that runs in this folder, if one does."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        # What the environment and .env say, which are read before.
        state_dir = Path(self.current_state.get("clasper_state_dir") or ".clasper")
        stack = read_running_stack(state_dir) or {}
        environment = {name.lower(): value for name, value in stack.get("environment", {}).items()}
        return {
            name: environment[name]
            for name in self.settings_cls.model_fields
            if name in environment
        }


class Settings(BaseSettings):
    """Clasper Worker's settings; ``.env.example`` explains each."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8-sig",  # which has a byte order mark or none
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    # Mission Control
    backend_url: str | None = None
    agent_jwt_secret: SecretStr | None = None
    agent_jwt_algorithm: str = "HS256"
    internal_api_token: SecretStr | None = None
    clasper_agent_token_ttl_sec: Annotated[int, Field(ge=30, le=3600)] = 300
    clasper_backend_timeout_sec: Annotated[float, Field(gt=0)] = 30.0
    clasper_backend_attempts: Annotated[int, Field(ge=1, le=20)] = 5
    clasper_default_task: str | None = None

    # Celery and Redis
    celery_broker_url: str = _LOCAL_REDIS
    celery_result_backend: str | None = None
    clasper_redis_url: str | None = None
    clasper_sentinel_master: Annotated[str, Field(min_length=1)] = "mymaster"
    clasper_sentinel_password: SecretStr | None = None
    clasper_result_ttl_sec: Annotated[int, Field(ge=60)] = 86_400
    clasper_visibility_timeout_sec: Annotated[float, Field(ge=2, le=3600)] = 15.0
    clasper_lane_depth: Annotated[int, Field(ge=0, le=100_000)] = 100
    clasper_tenant_concurrency: Annotated[int, Field(ge=1)] = 50
    clasper_max_deliveries: Annotated[int, Field(ge=1, le=100)] = 5
    clasper_callback_queue: Annotated[str, Field(min_length=1, max_length=200)] = "celery"
    clasper_busy_policy: Literal["enqueue", "reject", "interrupt", "collect"] = "enqueue"

    # The workspace
    clasper_workspace: Path = Path("./workspace")
    clasper_workspaces: Annotated[dict[str, Path], NoDecode] = Field(default_factory=dict)
    clasper_default_timezone: str = "UTC"
    clasper_include_time_context: bool = True
    clasper_smart_context: bool = False
    clasper_smart_context_max_skills: Annotated[int, Field(ge=0)] = 5
    clasper_smart_context_max_memory: Annotated[int, Field(ge=0)] = 3
    clasper_smart_context_max_tokens: Annotated[int, Field(ge=0)] = 0
    clasper_embedding_provider: Literal["none", "local", "openai"] = "none"
    clasper_embedding_model: str = DEFAULT_EMBEDDING_MODEL

    # Models
    llm_provider: str = "openai"
    llm_model_default: str = "gpt-4o-mini"
    llm_model_cheap: str | None = None
    llm_model_best: str | None = None
    llm_model_fallback: str | None = None
    openai_api_key: SecretStr | None = None
    openai_base_url: str | None = None
    clasper_llm_timeout_sec: Annotated[float, Field(gt=0)] = 120.0
    clasper_llm_retries: Annotated[int, Field(ge=0, le=20)] = 3
    clasper_context_window_tokens: Annotated[int, Field(ge=256)] | None = None
    clasper_context_warning_threshold: Annotated[int, Field(ge=1, le=100)] = 75
    clasper_llm_max_output_tokens: Annotated[int, Field(ge=1)] | None = None

    # Turns
    clasper_turn_soft_limit_sec: Annotated[float, Field(gt=0)] = 300.0
    clasper_turn_hard_limit_sec: Annotated[float, Field(gt=0)] = 600.0
    clasper_stream: Literal["asked", "always"] = "asked"
    clasper_max_steps: Annotated[int, Field(ge=1, le=200)] = 16
    clasper_max_message_chars: Annotated[int, Field(ge=1)] = 100_000
    clasper_max_history_messages: Annotated[int, Field(ge=0)] = 1_000
    clasper_max_request_chars: Annotated[int, Field(ge=1)] = 1_000_000
    clasper_history_limit: Annotated[int, Field(ge=0, le=1000)] = 50

    # Outages and rate limits
    clasper_outage_wait_sec: Annotated[float | None, Field(gt=0)] = None
    clasper_outage_failures: Annotated[int, Field(ge=1, le=1000)] = 4
    clasper_retry_after_max_sec: Annotated[float, Field(gt=0, le=3600)] = 120.0

    # Webhooks
    clasper_webhook_attempts: Annotated[int, Field(ge=1, le=50)] = 8
    clasper_webhook_backoff_sec: Annotated[float, Field(gt=0, le=600)] = 20.0
    clasper_webhook_allow_private: bool = False
    clasper_webhook_allowed_hosts: Annotated[frozenset[str], NoDecode] = frozenset()

    # The HTTP shim
    clasper_host: str = "127.0.0.1"
    clasper_port: Annotated[int, Field(ge=0, le=65_535)] = 8081
    agent_daemon_url: str | None = None
    agent_daemon_api_key: Annotated[SecretStr | None, NoDecode] = None
    clasper_metrics_keyed: bool = False

    # Agents named by environment
    user_id: str | None = None
    agent_role: str | None = None
    clasper_agents: str | None = None

    # What runs by the clock
    dispatch_limit_users: Annotated[int, Field(ge=1, le=1000)] = 25
    dispatch_limit_notifications: Annotated[int, Field(ge=1, le=1000)] = 25
    dispatch_min_interval_sec: Annotated[float, Field(ge=0.2, le=3600)] = 2.0
    dispatch_max_interval_sec: Annotated[float, Field(ge=0.2, le=86_400)] = 30.0
    clasper_heartbeat_interval_sec: Annotated[int, Field(ge=0, le=604_800)] = 1800
    clasper_active_hours: str = "08:00-22:00"
    clasper_standup_at: str = "09:00"
    standup_timezone: str | None = None

    # Logs and the local stack
    clasper_log_format: Literal["auto", "json", "console"] = "auto"
    clasper_log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    clasper_log_content: bool = False
    # Where a worker serves its figures to Prometheus; 0: nowhere.
    clasper_metrics_host: str = "127.0.0.1"
    clasper_metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    clasper_state_dir: Path = Path(".clasper")

    @field_validator("backend_url", "openai_base_url", "agent_daemon_url")
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        _refuse_space_inside(value)
        try:
            parts = urlsplit(value)
            usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("must start with http:// or https:// and name a host")
        return value.rstrip("/")

    @field_validator("openai_api_key", "internal_api_token", "agent_daemon_api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not all(" " <= char <= "~" for char in value.get_secret_value()):
            raise ValueError(
                "has a line break or another character inside that no header can carry: copy it"
                " again"
            )
        return value

    @field_validator("celery_broker_url")
    @classmethod
    def _known_transport(cls, value: str) -> str:
        _refuse_space_inside(value)
        if value.startswith(_REDIS):
            return value
        from kombu.transport import TRANSPORT_ALIASES  # noqa: PLC0415 - few need to look

        _refuse_other_redis(value)
        scheme = re.split(r"://|\+", value, maxsplit=1)[0]
        ready_made = "://" in value and re.search(r"[.:]", scheme)  # a transport by its class
        if scheme not in TRANSPORT_ALIASES and not ready_made:
            raise ValueError("must start with redis://, rediss://, sentinel:// or amqp://")
        return value

    @field_validator("celery_result_backend")
    @classmethod
    def _known_result_backend(cls, value: str | None) -> str | None:
        if value is not None:
            _refuse_space_inside(value)
            _refuse_other_redis(value)
        return value

    @field_validator("clasper_redis_url")
    @classmethod
    def _a_redis(cls, value: str | None) -> str | None:
        if value is not None:
            _refuse_space_inside(value)
            _refuse_other_redis(value)
            if not value.startswith(_REDIS):
                raise ValueError(f"must start with {_REDIS_FORMS}: our own state is kept in Redis")
        return value

    @field_validator("celery_broker_url", "celery_result_backend", "clasper_redis_url")
    @classmethod
    def _checked_certificates(cls, value: str | None) -> str | None:
        return value if value is None else with_certificate_check(value)

    @field_validator("standup_timezone")
    @classmethod
    def _known_timezone(cls, value: str | None) -> str | None:
        return value if value is None else check_timezone(value)

    @field_validator("clasper_active_hours")
    @classmethod
    def _hours(cls, value: str) -> str:
        ActiveHours.parse(value)
        return value

    @field_validator("clasper_standup_at")
    @classmethod
    def _time_of_day(cls, value: str) -> str:
        parse_time_of_day(value)
        return value

    @field_validator("clasper_workspaces", mode="before")
    @classmethod
    def _named_paths(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        named: dict[str, str] = {}
        for item in filter(None, (part.strip() for part in value.split(","))):
            name, _, path = (part.strip() for part in item.partition("="))
            if not _WORKSPACE_NAME.fullmatch(name) or not path:
                raise ValueError("must be name=path, comma separated, such as acme=./acme")
            if name in {"default", *named}:
                raise ValueError("must not name default, which is CLASPER_WORKSPACE, or one twice")
            named[name] = path
        return named

    @field_validator("clasper_webhook_allowed_hosts", mode="before")
    @classmethod
    def _comma_separated_hosts(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        hosts = (host.strip().lower() for host in value.split(","))
        return frozenset(host.removeprefix("[").removesuffix("]") for host in hosts if host)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put a running local stack between ``.env`` and the defaults."""
        del file_secret_settings
        for source in (env_settings, dotenv_settings):
            if isinstance(source, EnvSettingsSource):
                # Here, so that a variable with nothing but blanks in it is one that is not set.
                named = {name: bare_value(value or "") for name, value in source.env_vars.items()}
                source.env_vars = {name: value for name, value in named.items() if value}
        stack = _RunningStackSource(settings_cls)
        return init_settings, env_settings, dotenv_settings, stack

    @property
    def result_backend_url(self) -> str:
        """Where Celery keeps results: ``CELERY_RESULT_BACKEND``, else Redis as the broker's."""
        if self.celery_result_backend:
            return self.celery_result_backend
        if self.celery_broker_url.startswith(_REDIS):
            return self.celery_broker_url
        return _LOCAL_REDIS

    @property
    def redis_url(self) -> str:
        """Our own short-lived state: ``CLASPER_REDIS_URL``, else Redis as the broker's."""
        if self.clasper_redis_url:
            return self.clasper_redis_url
        urls = (self.celery_broker_url, self.result_backend_url)
        return next((url for url in urls if url.startswith(_REDIS)), _LOCAL_REDIS)

    @property
    def outage_wait_sec(self) -> float:
        """How long a turn waits for a host: ``CLASPER_OUTAGE_WAIT_SEC``, else 4/5 of its time."""
        return self.clasper_outage_wait_sec or 0.8 * self.clasper_turn_soft_limit_sec

    @property
    def daemon_api_keys(self) -> tuple[str, ...]:
        """The shim's accepted keys; several while rotating."""
        if self.agent_daemon_api_key is None:
            return ()
        keys = (key.strip() for key in self.agent_daemon_api_key.get_secret_value().split(","))
        return tuple(key for key in keys if key)


def _refuse_space_inside(url: str) -> None:
    if any(char.isspace() or not char.isprintable() for char in url):
        raise ValueError("has a space, a line break or another unprintable character inside")


def _refuse_other_redis(url: str) -> None:
    scheme = url.partition("://")[0].lower()
    if problem := _NOT_OUR_REDIS.get(scheme):
        raise ValueError(f"{scheme}:// cannot be used: {problem}. Use {_REDIS_FORMS}")


def load_settings(**overrides: Any) -> Settings:
    """Read the settings, or say which variable is wrong.

    Raises:
        ConfigurationError: a variable's value cannot be used; names the variable, not its value.
    """
    try:
        return Settings(**overrides)
    except ValidationError as exc:
        problems = [
            {
                "variable": str(error["loc"][0]).upper(),
                "problem": error["msg"].removeprefix("Value error, "),
            }
            for error in exc.errors(include_input=False, include_url=False)
        ]
        text = "; ".join(f"{item['variable']}: {item['problem']}" for item in problems)
        raise ConfigurationError(
            f"Check these settings (environment or .env): {text}", {"problems": problems}
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(
            "The file .env is not UTF-8 text: save it as UTF-8", {"variable": ".env"}
        ) from None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read once."""
    return load_settings()
