"""Options that are Celery's own, looked at before Celery gets them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

_PATCHING = ("gevent", "eventlet")  # to ask for them is to have them patch this process


def check_worker_options(app: Any, options: Sequence[str]) -> None:
    """Refuse what Celery's worker would refuse, before a process is started with it.

    Args:
        app: the Celery app that the worker is to run.
        options: as they were typed.

    Raises:
        click.UsageError: Celery has no such option, it has not such a value, or the pool has no use
            for it.
    """
    from celery.bin.base import CLIContext  # noqa: PLC0415 - `clasper --help` does without Celery
    from celery.bin.worker import worker  # noqa: PLC0415 - likewise

    from clasper_worker.engine.pool.setup import refusal  # noqa: PLC0415 - likewise

    if any(name in option for option in options for name in _PATCHING):
        return
    context = CLIContext(app=app, no_color=True, workdir=None, quiet=True)
    parent = click.Context(click.Command("celery"), info_name="celery", obj=context)
    try:
        with worker.make_context("worker", list(options), parent=parent) as parsed:
            reason = refusal(app, parsed.params)
    except click.UsageError as exc:
        raise click.UsageError(exc.format_message(), click.get_current_context()) from None
    if reason:
        raise click.UsageError(reason)
