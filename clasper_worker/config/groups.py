"""The settings by what they are about: what a part of the system takes, it takes of its group.

A field is named like its variable, in lower case. `Settings` is all groups in one; a group alone,
made by hand, needs no environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import NoDecode

from clasper_worker.config.values import (
    REDIS_SCHEMES,
    BrokerUrl,
    HeaderSecret,
    HostNames,
    HoursOfDay,
    HttpUrl,
    NamedPaths,
    RedisUrl,
    ResultUrl,
    TimeOfDay,
    TimezoneName,
)

DEFAULT_EMBEDDING_MODEL = "Xenova/all-MiniLM-L6-v2"
_LOCAL_REDIS = "redis://localhost:6379/0"


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class BackendGroup(_Group):
    """Mission Control, and how we prove who we are to it."""

    backend_url: HttpUrl | None = None
    agent_jwt_secret: SecretStr | None = None
    agent_jwt_algorithm: str = "HS256"
    internal_api_token: HeaderSecret | None = None
    clasper_backend_timeout_sec: Annotated[float, Field(gt=0)] = 30.0
    clasper_default_task: str | None = None


class QueueGroup(_Group):
    """The broker, the result backend, our Redis, and how workers share what is queued."""

    celery_broker_url: BrokerUrl = _LOCAL_REDIS
    celery_result_backend: ResultUrl | None = None
    clasper_redis_url: RedisUrl | None = None
    clasper_sentinel_master: Annotated[str, Field(min_length=1)] = "mymaster"
    clasper_sentinel_password: SecretStr | None = None
    clasper_result_ttl_sec: Annotated[int, Field(ge=60)] = 86_400
    clasper_visibility_timeout_sec: Annotated[float, Field(ge=2, le=3600)] = 15.0
    clasper_lane_depth: Annotated[int, Field(ge=0, le=100_000)] = 100
    clasper_tenant_concurrency: Annotated[int, Field(ge=1)] = 50
    clasper_max_deliveries: Annotated[int, Field(ge=1, le=100)] = 5
    clasper_callback_queue: Annotated[str, Field(min_length=1, max_length=200)] = "celery"
    clasper_busy_policy: Literal["enqueue", "reject", "interrupt", "collect", "rollback"] = (
        "enqueue"
    )

    @property
    def result_backend_url(self) -> str:
        """Where Celery keeps results: ``CELERY_RESULT_BACKEND``, else Redis as the broker's."""
        if self.celery_result_backend:
            return self.celery_result_backend
        if self.celery_broker_url.startswith(REDIS_SCHEMES):
            return self.celery_broker_url
        return _LOCAL_REDIS

    @property
    def redis_url(self) -> str:
        """Our own short-lived state: ``CLASPER_REDIS_URL``, else Redis as the broker's."""
        if self.clasper_redis_url:
            return self.clasper_redis_url
        urls = (self.celery_broker_url, self.result_backend_url)
        return next((url for url in urls if url.startswith(REDIS_SCHEMES)), _LOCAL_REDIS)


class ModelsGroup(_Group):
    """Which models turns ask, where, and how long they wait for one."""

    llm_provider: str = "openai"
    llm_model_default: str = "gpt-4o-mini"
    llm_model_cheap: str | None = None
    llm_model_best: str | None = None
    llm_model_fallback: str | None = None
    openai_api_key: HeaderSecret | None = None
    openai_base_url: HttpUrl | None = None
    clasper_llm_timeout_sec: Annotated[float, Field(gt=0)] = 120.0
    clasper_context_window_tokens: Annotated[int, Field(ge=256)] | None = None
    clasper_llm_max_output_tokens: Annotated[int, Field(ge=1)] | None = None


class TurnsGroup(_Group):
    """What one turn may take: time, model calls, characters, and patience with an outage."""

    clasper_turn_soft_limit_sec: Annotated[float, Field(gt=0)] = 300.0
    clasper_turn_hard_limit_sec: Annotated[float, Field(gt=0)] = 600.0
    clasper_stream: Literal["asked", "always"] = "asked"
    clasper_max_steps: Annotated[int, Field(ge=1, le=200)] = 16
    clasper_max_request_chars: Annotated[int, Field(ge=1)] = 1_000_000
    clasper_outage_wait_sec: Annotated[float | None, Field(gt=0)] = None

    @property
    def outage_wait_sec(self) -> float:
        """How long a turn waits for a host: ``CLASPER_OUTAGE_WAIT_SEC``, else 4/5 of its time."""
        return self.clasper_outage_wait_sec or 0.8 * self.clasper_turn_soft_limit_sec


class WorkspaceGroup(_Group):
    """Where the instructions lie, and what a prompt has of them."""

    clasper_workspace: Path = Path("./workspace")
    clasper_workspaces: NamedPaths = Field(default_factory=dict)
    clasper_default_timezone: str = "UTC"
    clasper_include_time_context: bool = True
    clasper_context_warning_threshold: Annotated[int, Field(ge=1, le=100)] = 75
    clasper_smart_context: bool = False
    clasper_smart_context_max_skills: Annotated[int, Field(ge=0)] = 5
    clasper_smart_context_max_memory: Annotated[int, Field(ge=0)] = 3
    clasper_smart_context_max_tokens: Annotated[int, Field(ge=0)] = 0
    clasper_embedding_provider: Literal["none", "local", "openai"] = "none"
    clasper_embedding_model: str = DEFAULT_EMBEDDING_MODEL


class PeriodicGroup(_Group):
    """What Beat starts, for whom, and when."""

    user_id: str | None = None
    agent_role: str | None = None
    clasper_agents: str | None = None
    dispatch_limit_users: Annotated[int, Field(ge=1, le=1000)] = 25
    dispatch_limit_notifications: Annotated[int, Field(ge=1, le=1000)] = 25
    dispatch_min_interval_sec: Annotated[float, Field(ge=0.2, le=3600)] = 2.0
    dispatch_max_interval_sec: Annotated[float, Field(ge=0.2, le=86_400)] = 30.0
    clasper_heartbeat_interval_sec: Annotated[int, Field(ge=0, le=604_800)] = 1800
    clasper_active_hours: HoursOfDay = "08:00-22:00"
    clasper_standup_at: TimeOfDay = "09:00"
    standup_timezone: TimezoneName | None = None


class WebhooksGroup(_Group):
    """How often webhooks are tried, and where they may go."""

    clasper_webhook_attempts: Annotated[int, Field(ge=1, le=50)] = 8
    clasper_webhook_backoff_sec: Annotated[float, Field(gt=0, le=600)] = 20.0
    clasper_webhook_signature: Literal["timed", "plain"] = "timed"
    clasper_webhook_allow_private: bool = False
    clasper_webhook_allowed_hosts: HostNames = frozenset()


class ShimGroup(_Group):
    """The HTTP shim: where it listens, where others find it, and who may ask it."""

    clasper_host: str = "127.0.0.1"
    clasper_port: Annotated[int, Field(ge=0, le=65_535)] = 8081
    agent_daemon_url: HttpUrl | None = None
    agent_daemon_api_key: Annotated[HeaderSecret | None, NoDecode] = None
    clasper_metrics_keyed: bool = False
    clasper_queue_limit: Annotated[int, Field(ge=1)] = 100_000
    # For clients of the original; CLASPER_COMPAT=original sets all, the webhooks' signature too.
    clasper_compat: Literal["original"] | None = None
    clasper_lenient: bool = False
    clasper_send_waits: Annotated[float, Field(ge=0, le=600)] = 0.0
    clasper_send_streams: bool = False

    @property
    def daemon_api_keys(self) -> tuple[str, ...]:
        """The shim's accepted keys; several while rotating."""
        if self.agent_daemon_api_key is None:
            return ()
        keys = (key.strip() for key in self.agent_daemon_api_key.get_secret_value().split(","))
        return tuple(key for key in keys if key)


class ConformanceGroup(_Group):
    """What `clasper conformance` checks, as whom, and where its reports go."""

    control_plane_url: str | None = None
    agent_token: SecretStr | None = None
    conformance_report_dir: Path = Path("conformance-results")


class ObservabilityGroup(_Group):
    """Logs, and where a worker serves its figures to Prometheus (port 0: nowhere)."""

    clasper_log_format: Literal["auto", "json", "console"] = "auto"
    clasper_log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    clasper_log_content: bool = False
    clasper_metrics_host: str = "127.0.0.1"
    clasper_metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0
