"""Choosing the pool of an app's workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import click
import pytest
from celery import Celery
from celery.backends.cache import CacheBackend
from celery.bin.worker import WORKERS_POOL
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.concurrency.thread import TaskPool as ThreadsPool

from clasper_worker.engine.pool.hub import SteadyHub
from clasper_worker.engine.pool.pool import TaskPool
from clasper_worker.engine.pool.result_backend import AtomicRedisBackend
from clasper_worker.engine.pool.setup import (
    CONSUMER,
    DEFAULT_CONCURRENCY,
    POOL,
    _PoolChoice,
    install,
)


@pytest.fixture
def app() -> Iterator[Celery]:
    app = Celery("choice", broker="memory://", set_as_current=False)
    app.conf.worker_pool = POOL
    yield app
    app.close()


@dataclass
class _Worker:
    app: Celery
    pool_cls: Any = None
    concurrency: int = 500
    prefetch_multiplier: int = 1
    quiet: bool = False
    _conninfo: SimpleNamespace = field(default_factory=SimpleNamespace)


@dataclass
class _CommandLine:
    app: Celery


def _start(app: Celery, *argv: str, **options: Any) -> _Worker:
    """What Celery does with ``celery worker ARGV``, as far as pools are concerned."""
    worker = _Worker(app)
    choice = _PoolChoice(app)

    @click.command()
    @click.option("-P", "--pool", default="prefork", type=WORKERS_POOL)
    @click.option("-c", "--concurrency")
    @click.option("--autoscale")
    def command(**given: Any) -> None:
        choice.on_options(instance=worker, conf=app.conf, options={**given, **options})
        worker.pool_cls = given["pool"]
        choice.on_worker(sender=worker)

    context = type("Obj", (), {"app": app})()
    command.main(list(argv), obj=context, standalone_mode=False)
    return worker


def test_the_asyncio_pool_and_its_width_are_the_defaults(app: Celery) -> None:
    assert _start(app).pool_cls is TaskPool
    assert app.conf.worker_concurrency == DEFAULT_CONCURRENCY == 500


def test_the_consumer_turns_a_hub_that_loses_no_callback(app: Celery) -> None:
    assert _start(app)._conninfo.requires_hub is SteadyHub


def test_a_given_width_is_kept(app: Celery) -> None:
    _start(app, "-c", "7")
    assert app.conf.worker_concurrency is None


def test_a_configured_width_is_kept(app: Celery) -> None:
    app.conf.worker_concurrency = 9
    _start(app)
    assert app.conf.worker_concurrency == 9


@pytest.mark.parametrize(
    ("name", "pool"),
    [("prefork", PreforkPool), ("processes", PreforkPool), ("threads", ThreadsPool)],
)
def test_another_pool_is_what_was_asked_for_and_keeps_its_own_width(
    app: Celery, name: str, pool: type
) -> None:
    assert _start(app, "-P", name).pool_cls is pool
    assert app.conf.worker_concurrency is None


def test_autoscale_is_refused(app: Celery) -> None:
    with pytest.raises(SystemExit, match="does not autoscale"):
        _start(app, "--autoscale", "10,2")


def test_autoscale_is_preforks_to_have(app: Celery) -> None:
    assert _start(app, "-P", "prefork", "--autoscale", "10,2").pool_cls is PreforkPool


def test_without_a_command_line_the_parameter_decides(app: Celery) -> None:
    choice = _PoolChoice(app)
    choice.on_options(instance=_Worker(app), conf=app.conf, options={"pool": "solo"})
    assert app.conf.worker_concurrency is None
    choice.on_options(instance=_Worker(app), conf=app.conf, options={"pool": POOL})
    assert app.conf.worker_concurrency == 500


def test_workers_of_other_apps_are_left_alone(app: Celery) -> None:
    other = Celery("other", broker="memory://", set_as_current=False)
    choice = _PoolChoice(app)
    choice.on_options(instance=_Worker(other), conf=other.conf, options={})
    assert other.conf.worker_concurrency is None
    other.close()


def test_the_total_is_said_before_the_banner(
    app: Celery, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setattr(sys, "__stdout__", sys.stdout)
    choice = _PoolChoice(app)
    choice.on_ready(instance=_Worker(app, TaskPool, 20, 2))
    choice.on_ready(instance=_Worker(app, TaskPool, quiet=True))
    choice.on_ready(instance=_Worker(app, PreforkPool))
    assert capsys.readouterr().out == (
        "asyncio pool: up to 20 turns at a time in this process (-c), "
        "40 messages prefetched at most\n"
    )


def test_installing_plugs_in_pool_consumer_and_results() -> None:
    app = Celery(
        "installed", broker="memory://", backend="redis://127.0.0.1:1/0", set_as_current=False
    )
    install(app)
    assert app.conf.worker_pool == POOL
    assert app.conf.worker_consumer == CONSUMER
    assert isinstance(app.backend, AtomicRedisBackend)
    app.close()


def test_installing_leaves_other_result_backends_alone() -> None:
    app = Celery("installed", broker="memory://", backend="cache+memory://", set_as_current=False)
    install(app)
    assert isinstance(app.backend, CacheBackend)
    app.close()
