"""``clasper worker``: Celery's worker with our defaults, in one process or several."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click
import structlog

from clasper_worker.config.settings import get_settings
from clasper_worker.engine.processes.cpu import run_on, usable_cpus
from clasper_worker.startup_checks import refuse_contradictions


@click.command(
    name="worker",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    epilog="Example: clasper worker --processes 2 -c 1000 -n agents@%h",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    help="Worker processes, supervised as one; the number of cores when omitted.",
)
@click.option(
    "--pin/--no-pin",
    default=True,
    help="Keep each process on a CPU of its own where there is one process a core (default).",
)
@click.option("--cpu", type=click.IntRange(0), hidden=True)  # what a group gives its processes
@click.pass_context
def command(ctx: click.Context, processes: int | None, pin: bool, cpu: int | None) -> None:
    """Run workers: `celery -A clasper_worker worker -E`, plus any of its options.

    Each process holds -c turns in flight (500 unless given) on an event loop of its own. SIGTERM
    or Ctrl-C lets running turns finish; a second one, or SIGQUIT, does not.
    """
    refuse_contradictions(get_settings())
    count = processes or os.cpu_count() or 1
    from clasper_worker.celery import app  # noqa: PLC0415 - `clasper --help` does without Celery
    from clasper_worker.cli.celery_options import check_worker_options  # noqa: PLC0415 - likewise

    check_worker_options(app, ctx.args)  # once, rather than in each process of a group
    if cpu is not None:
        run_on(cpu)
    if count == 1:
        _run_here(ctx.args)
    else:
        sys.exit(_run_group(count, ctx.args, usable_cpus() if pin else []))


def _run_here(options: list[str]) -> None:
    from celery.utils.nodenames import default_nodename, host_format  # noqa: PLC0415 - as below

    from clasper_worker.celery import app  # noqa: PLC0415 - `clasper --help` does without Celery
    from clasper_worker.engine.processes.worker_group import own_node, turns_in_flight  # noqa: PLC0415 - likewise
    from clasper_worker.observability.logs import configure_logging  # noqa: PLC0415 - likewise

    node, rest = own_node(options)
    level = ["--loglevel", get_settings().clasper_log_level]
    # Celery's banner is for people: a log gets a line instead.
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    if quiet and (limit := turns_in_flight(rest)):
        configure_logging(get_settings())
        name = host_format(default_nodename(node))
        structlog.get_logger(__name__).info("worker.starting", node=name, turns_at_a_time=limit)
    app.worker_main([*quiet, "worker", "-E", "-n", node, *level, *rest])


def _run_group(count: int, options: list[str], cpus: Sequence[int]) -> int:
    from clasper_worker.engine.processes.worker_group import (  # noqa: PLC0415 - as above
        WorkerGroup,
        turns_in_flight,
        worker_commands,
    )
    from clasper_worker.observability.logs import configure_logging  # noqa: PLC0415 - as above

    configure_logging(get_settings())
    each = turns_in_flight(options)
    total = f": {each} turns at a time in each, {count * each} in all" if each else ""
    if each is None:  # another pool, which may have processes or threads of its own to spread
        cpus = []
    if sys.stderr.isatty():
        click.echo(f"{count} worker processes, supervised as one{total}", err=True)
    else:
        log = structlog.get_logger(__name__)
        log.info("worker_group.starting", processes=count, turns_at_a_time=each and count * each)
    with _metrics_of_the_group():
        return asyncio.run(WorkerGroup(worker_commands(count, options, cpus)).run())


@contextmanager
def _metrics_of_the_group() -> Iterator[None]:
    """Serve the sum of all processes' figures from this one, where they are to be served."""
    settings = get_settings()
    if not settings.clasper_metrics_port:
        yield
        return
    from clasper_worker.observability.exporter import serve_metrics, shared_folder  # noqa: PLC0415 - as above

    with shared_folder():
        stop = serve_metrics(settings.clasper_metrics_host, settings.clasper_metrics_port)
        os.environ["CLASPER_METRICS_PORT"] = "0"  # for the processes
        try:
            yield
        finally:
            stop()
