"""Making the asyncio pool the default of an app, by Celery's own settings and signals."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click
from celery import Celery, signals
from celery.concurrency import ALIASES, get_implementation
from celery.concurrency.prefork import TaskPool as PreforkPool
from click.core import ParameterSource

from clasper_worker.engine.pool.hub import SteadyHub
from clasper_worker.engine.pool.vital import is_worker

POOL = "clasper_worker.engine.pool.pool:TaskPool"
CONSUMER = "clasper_worker.engine.queue.bootsteps:BatchingConsumer"
RESULTS = "clasper_worker.engine.pool.result_backend:AtomicRedisBackend"
SENTINEL_RESULTS = "clasper_worker.engine.pool.result_backend:AtomicSentinelBackend"
DEFAULT_CONCURRENCY = 500
"""Turns in flight per worker process, where ``-c`` is not given."""


def install(app: Celery) -> None:
    """Have this app's workers use the asyncio pool, unless another is chosen with ``-P``.

    Also makes ``-P prefork`` mean prefork, which Celery cannot tell from its default once
    ``worker_pool`` is set; gives the asyncio pool its own default for ``-c``, leaving those of the
    other pools alone; and refuses ``--autoscale`` and what replaces child processes, which have no
    use here.

    Under any pool, task events are sent in batches, and results on Redis are stored in one step.
    """
    app.conf.worker_pool = POOL
    app.conf.worker_consumer = CONSUMER
    app.loader.override_backends = {
        **app.loader.override_backends,
        "redis": RESULTS,
        "rediss": RESULTS,
        "sentinel": SENTINEL_RESULTS,
    }
    choice = _PoolChoice(app)
    signals.celeryd_init.connect(choice.on_options, weak=False)
    signals.worker_init.connect(choice.on_worker, weak=False)
    signals.celeryd_after_setup.connect(choice.on_ready, weak=False)


class _PoolChoice:
    """Follows one worker's start: what it was asked for, and what it gets."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def on_options(self, instance: Any, conf: Any, options: dict[str, Any], **_: Any) -> None:
        """Before the worker reads its settings: choose the default of ``-c`` by the pool."""
        if instance.app is not self._app or not _is_asyncio(self._app, options):
            return
        if reason := _use(options, conf):
            # A signal's receivers may not raise Exceptions: Celery would log and go on.
            raise SystemExit(reason)
        if not options.get("concurrency") and not conf.worker_concurrency:
            conf.worker_concurrency = DEFAULT_CONCURRENCY

    def on_worker(self, sender: Any, **_: Any) -> None:
        """Before the worker makes its event loop and its pool."""
        if sender.app is not self._app:
            return
        is_worker(sender)
        sender._conninfo.requires_hub = SteadyHub  # noqa: SLF001 - where Celery looks for it
        if _asked_for_prefork():
            sender.pool_cls = PreforkPool

    def on_ready(self, instance: Any, **_: Any) -> None:
        """Before Celery's banner: say how much this process takes on."""
        if instance.app is not self._app or instance.quiet or not _is_ours(instance.pool_cls):
            return
        turns = instance.concurrency
        messages = turns * instance.prefetch_multiplier
        print(  # beside Celery's own banner, which is printed as well
            f"asyncio pool: up to {turns} turns at a time in this process (-c), "
            f"{messages} messages prefetched at most",
            file=sys.__stdout__,
            flush=True,
        )


def refusal(app: Celery, options: Mapping[str, Any]) -> str:
    """Why the asyncio pool cannot be run with these options of a worker; empty where it can.

    Args:
        app: whose worker it is to be.
        options: by the names of Celery's parameters.
    """
    return _use(options, app.conf) if _is_asyncio(app, options) else ""


def _use(options: Mapping[str, Any], conf: Any) -> str:
    """What to use instead of what the asyncio pool has no use for."""
    if options.get("autoscale"):
        return (
            "The asyncio pool does not autoscale: an idle slot costs nothing. "
            "Give the most turns at a time with -c instead of --autoscale."
        )
    for name, limit in (("max_tasks_per_child", "tasks"), ("max_memory_per_child", "memory")):
        if options.get(name) or getattr(conf, f"worker_{name}"):
            return (
                f"The asyncio pool has no child processes whose {limit} could be limited: all turns"
                f" run in the worker's own process. Leave out --{name.replace('_', '-')}"
                f" (worker_{name}), or choose Celery's prefork pool with -P prefork."
            )
    return ""


def _is_asyncio(app: Celery, options: Mapping[str, Any]) -> bool:
    if _asked_for_prefork():
        return False
    chosen = options.get("pool") or options.get("pool_cls") or app.conf.worker_pool
    return _is_ours(get_implementation(chosen))


def _is_ours(pool: Any) -> bool:
    from clasper_worker.engine.pool.pool import TaskPool  # noqa: PLC0415  # only workers need it

    return isinstance(pool, type) and issubclass(pool, TaskPool)


def _asked_for_prefork() -> bool:
    """Whether ``-P prefork`` was typed: the option was given, and yet has the configured value.

    Every other name gives another class, but for ``custom`` where CELERY_CUSTOM_WORKER_POOL names
    this pool.
    """
    context = click.get_current_context(silent=True)
    if context is None or context.get_parameter_source("pool") is not ParameterSource.COMMANDLINE:
        return False
    is_ours_by_name = _is_ours(get_implementation(ALIASES.get("custom")))
    return _is_ours(context.params.get("pool")) and not is_ours_by_name
