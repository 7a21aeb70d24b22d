"""The Celery app and its configuration: ``celery -A clasper_worker worker``.

The app is not made the current one: a customer's own Celery app in the same process stays so.
Configuration is read when it is first needed, not at import.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict
from functools import partial
from typing import Any

import click
import structlog
from celery import signals
from celery.app.amqp import AMQP
from celery.apps import worker as worker_program
from celery.utils.nodenames import host_format
from click.core import ParameterSource
from kombu import Connection, Exchange, Queue

from clasper_worker.config.names import (
    COMPACT_TASK,
    DELIVERED_TASK,
    HEARTBEAT_TASK,
    LLM_TASK,
    QUEUES,
    SEND_TASK,
    STANDUP_TASK,
    TURN_QUEUE,
)
from clasper_worker.config.settings import Settings, get_settings
from clasper_worker.config.values import bare_value
from clasper_worker.engine.pool.setup import install
from clasper_worker.engine.queue.policy import ScheduleRules
from clasper_worker.engine.queue.scheduler import SCHEDULED
from clasper_worker.engine.redis.connections import (
    CheckedCelery,
    SentinelMaster,
    is_sentinel,
    options_for_celery,
)
from clasper_worker.errors import ConfigurationError
from clasper_worker.observability.logs import (
    configure_logging,
    leave_out_ticks,
    say_as_json,
    writes_json,
)
from clasper_worker.periodic.registry import PERIODIC_JOBS
from clasper_worker.startup_checks import refuse_contradictions

log = structlog.get_logger(__name__)

TRANSPORT = "clasper_worker.engine.queue.transport:Transport"
SENTINEL_TRANSPORT = "clasper_worker.engine.queue.transport:SentinelTransport"
_SCHEMES = {TRANSPORT: "redis", SENTINEL_TRANSPORT: "sentinel"}

# A Redis may vanish without closing its connections. Each wait for it ends, and a worker connects
# anew, but not while it merely stands still for a moment: Celery may then come back half a minute
# late. An idle worker's wait for a message is looked after as often as health checks come.
_BROKER_CONNECTIONS = {
    "socket_timeout": 20,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
}

# The broker redelivers what was not acknowledged after the longest turn, and a while.
_REDELIVERY_MARGIN_SECONDS = 60


def celery_configuration(settings: Settings) -> dict[str, Any]:
    """Celery's configuration for a worker of ours (names: Celery's documentation)."""
    visibility_timeout = settings.clasper_turn_hard_limit_sec + _REDELIVERY_MARGIN_SECONDS
    url, results = settings.celery_broker_url, settings.result_backend_url
    transport: dict[str, Any] = (
        {
            "visibility_timeout": visibility_timeout,
            "schedule_rules": asdict(ScheduleRules.from_settings(settings)),
            **_BROKER_CONNECTIONS,
        }
        if url.startswith(SCHEDULED)
        else {}
    )
    return {
        "broker_url": url,
        "broker_connection_retry_on_startup": True,
        # A Redis that is full, or was made a replica, answers with errors: as with one that is
        # away, wait until it is well again.
        "broker_channel_error_retry": True,
        "broker_transport": _transport(url),
        "broker_transport_options": transport,
        "result_backend": results,
        "result_backend_transport_options": {
            "visibility_timeout": visibility_timeout,
            **options_for_celery(results, settings),
        },
        # As with the broker: a connection on which nobody answers is given up.
        "redis_socket_timeout": _BROKER_CONNECTIONS["socket_timeout"],
        "redis_socket_connect_timeout": _BROKER_CONNECTIONS["socket_connect_timeout"],
        "redis_socket_keepalive": True,
        "redis_backend_health_check_interval": _BROKER_CONNECTIONS["health_check_interval"],
        "result_expires": settings.clasper_result_ttl_sec,
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "timezone": "UTC",
        "task_default_queue": TURN_QUEUE,
        # Each its own exchange and routing key: bound to one they would share, all four queues
        # would get a copy of a message that names them.
        "task_queues": [Queue(name, Exchange(name), routing_key=name) for name in QUEUES],
        "task_routes": ("clasper_worker.engine.queue.follow_ups.route_follow_up",),
        # A killed worker's turns come back instead of being lost: acknowledge when done.
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        "task_annotations": {
            SEND_TASK: {
                "soft_time_limit": settings.clasper_turn_soft_limit_sec,
                "time_limit": settings.clasper_turn_hard_limit_sec,
            },
            COMPACT_TASK: {"time_limit": settings.clasper_turn_soft_limit_sec},
            LLM_TASK: {"time_limit": settings.clasper_turn_soft_limit_sec},
            HEARTBEAT_TASK: {
                "soft_time_limit": settings.clasper_turn_soft_limit_sec,
                "time_limit": settings.clasper_turn_hard_limit_sec,
            },
            STANDUP_TASK: {"time_limit": settings.clasper_turn_soft_limit_sec},
            DELIVERED_TASK: {"time_limit": 120.0},
            **{job.task: {"time_limit": job.time_limit} for job in PERIODIC_JOBS},
        },
        "task_track_started": True,
        "task_send_sent_event": True,
        "worker_send_task_events": True,
        "beat_scheduler": "clasper_worker.periodic.beat_scheduler:BeatScheduler",
        # redbeat's second Beat takes over after the lock's timeout: seconds, not its 25 minutes.
        "beat_max_loop_interval": 2,
        "redbeat_lock_timeout": 10,
        **_redbeat_redis(settings),
        "redbeat_key_prefix": "clasper:redbeat:",
    }


def _transport(url: str) -> str | None:
    if is_sentinel(url):
        return SENTINEL_TRANSPORT
    return TRANSPORT if url.startswith(SCHEDULED) else None


def _redbeat_redis(settings: Settings) -> dict[str, Any]:
    # Options of ours, so that it does not borrow the broker's transport options and warn of it.
    options: dict[str, Any] = {"socket_timeout": 5, "socket_connect_timeout": 5}
    master = SentinelMaster.of(settings.redis_url, settings)
    if master is None:
        return {"redbeat_redis_url": settings.redis_url, "redbeat_redis_options": options}
    options |= {
        "sentinels": list(master.sentinels),
        "service_name": master.name,
        "db": master.db,
        "username": master.username,
        "password": master.password,
        "sentinel_kwargs": master.asking,
    }
    return {"redbeat_redis_url": "redis-sentinel://", "redbeat_redis_options": options}


class _NamedConnection(Connection):
    """A connection whose address is named as in its URL, not by the transport's class.

    Flower knows a broker by its scheme.
    """

    def as_uri(self, *args: Any, **kwargs: Any) -> str:
        """The address, without its password unless that is asked for."""
        address: str = super().as_uri(*args, **kwargs)
        for transport, scheme in _SCHEMES.items():
            if address.startswith(transport):
                over_tls = "s" if scheme == "redis" and self.ssl else ""
                return f"{scheme}{over_tls}{address.removeprefix(transport)}"
        return address


class _Amqp(AMQP):
    Connection = _NamedConnection


def settings_of_the_app() -> Settings:
    """The settings; under the ``celery`` command one line of what is wrong, as `clasper` has it."""
    try:
        return get_settings()
    except ConfigurationError as exc:
        context = click.get_current_context(silent=True)
        if context is None or context.find_root().command.name != "celery":
            raise
        click.echo(f"Error ({exc.code}): {exc}", err=True)
        raise SystemExit(1) from None


class ClasperCelery(CheckedCelery):
    """A Celery app that reads our settings when its configuration is first used."""

    amqp_cls = _Amqp

    def prepare_config(self, c: Any) -> Any:
        """Lay our configuration under what the app was configured with otherwise."""
        return super().prepare_config({**celery_configuration(settings_of_the_app()), **(c or {})})

    def _connection(self, url: Any, *args: Any, **kwargs: Any) -> Any:
        # One Sentinel for kombu: see `broker.sentinel`, which knows all of them.
        if isinstance(url, str) and is_sentinel(bare_value(url)):
            url = url.partition(";")[0]
        return super()._connection(url, *args, **kwargs)

    @property
    def Worker(self) -> Any:  # noqa: N802 - Celery's name
        """Celery's worker program; there is none while our settings contradict each other."""
        _refuse_to_start()
        base = super().Worker
        return type(base.__name__, (_UniquelyNamed, base), {"__module__": base.__module__})

    @property
    def Beat(self) -> Any:  # noqa: N802 - Celery's name
        """Celery's Beat program; as with the worker."""
        _refuse_to_start()
        signals.setup_logging.connect(_configure_logging, weak=False)
        # Its banner is for people.
        return super().Beat if sys.stderr.isatty() else partial(super().Beat, quiet=True)


class _UniquelyNamed:
    """A worker whose node name is its own, unless it was given one.

    Celery's default, ``celery@HOST``, is that of each worker on a host.
    """

    def __init__(self, app: Any = None, hostname: str | None = None, **options: Any) -> None:
        from clasper_worker.engine.processes.worker_group import unique_node  # noqa: PLC0415 - a worker's

        if hostname is None or _is_default("hostname"):
            hostname = host_format(unique_node())
        super().__init__(app, hostname=hostname, **options)  # type: ignore[call-arg]


def _is_default(option: str) -> bool:
    """Whether an option of the running command line was not given."""
    context = click.get_current_context(silent=True)
    return context is not None and context.get_parameter_source(option) is ParameterSource.DEFAULT


def _refuse_to_start() -> None:
    try:
        refuse_contradictions(get_settings())
    except ConfigurationError as exc:
        # Ends `celery -A clasper_worker worker` with this line and exit code 1: anything else that
        # is raised here Celery would show as a fault of its own, with a traceback.
        raise SystemExit(f"Error ({exc.code}): {exc}") from None


def _log_our_way(instance: Any, **_: Any) -> None:
    """Take over the logs of a worker of our app (``celery -A clasper_worker worker``)."""
    if instance.app is app:
        signals.setup_logging.connect(_configure_logging, weak=False)
        if writes_json(get_settings()):
            worker_program.safe_say = say_as_json


def _say_what_is_missing(sender: Any, **_: Any) -> None:
    """Tell the operator at the start, not only each caller, why turns are going to fail."""
    if sender.app is not app:
        return
    from clasper_worker.engine.redis.doubts import warn_of_doubtful_redis  # noqa: PLC0415 - a worker's
    from clasper_worker.runtime import check_settings  # noqa: PLC0415 - likewise
    from clasper_worker.startup_checks import warn_of_doubtful_settings  # noqa: PLC0415 - likewise

    settings = get_settings()
    warn_of_doubtful_settings(settings)
    warn_of_doubtful_redis(settings)
    try:
        check_settings(settings)
    except ConfigurationError as exc:
        log.error("worker.turns_will_fail", reason=str(exc), **exc.details)  # noqa: TRY400 - no fault of ours


def _log_our_way_in_flower(sender: Any, **_: Any) -> None:
    """Take over the logs of a Flower of our app, which loads the tasks after its own set-up."""
    if sender is app and "flower" in sys.argv[1:]:
        configure_logging(get_settings(), level=logging.getLogger().level)


def _serve_metrics(sender: Any, **_: Any) -> None:
    settings = get_settings()
    if sender.app is not app or not settings.clasper_metrics_port:
        return
    from clasper_worker.observability.exporter import serve_metrics  # noqa: PLC0415 - a worker's

    try:
        serve_metrics(settings.clasper_metrics_host, settings.clasper_metrics_port)
    except ConfigurationError as exc:  # turns are worth more than figures of them
        log.error("worker.metrics_not_served", reason=str(exc), **exc.details)  # noqa: TRY400 - no fault of ours


def _configure_logging(loglevel: int | str, **_: Any) -> None:
    # Celery passes its own default, WARNING, where no level was asked for.
    asked = any(option.startswith(("-l", "--loglevel")) for option in sys.argv)
    configure_logging(get_settings(), level=loglevel if asked else None)


app = ClasperCelery("clasper_worker", set_as_current=False, include=["clasper_worker.tasks"])
install(app)
leave_out_ticks(job.task for job in PERIODIC_JOBS)
app.conf.worker_consumer = "clasper_worker.engine.queue.bootsteps:TurnConsumer"
app.conf.clasper_queued_reporter = "clasper_worker.process:report_queued"
app.conf.clasper_dead_letter_reporter = "clasper_worker.completion.dead_letters:Burials"
app.steps["consumer"].add("clasper_worker.engine.queue.bootsteps:KeepLeases")
app.steps["consumer"].add("clasper_worker.engine.queue.revocations:WithdrawRevoked")
app.steps["consumer"].add("clasper_worker.engine.queue.orphans:ReleaseOrphans")
signals.celeryd_init.connect(_log_our_way, weak=False)
signals.import_modules.connect(_log_our_way_in_flower, weak=False)
signals.worker_ready.connect(_say_what_is_missing, weak=False)
signals.worker_ready.connect(_serve_metrics, weak=False)
