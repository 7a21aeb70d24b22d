"""``clasper worker``: Celery's worker with our defaults."""

from __future__ import annotations

import click

from clasper_worker.settings import get_settings


@click.command(
    name="worker",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    epilog="Example: clasper worker -c 200 -n agents@%h",
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Run a Celery worker: `celery -A clasper_worker worker -E`, plus any of its options."""
    from clasper_worker.celery import app  # noqa: PLC0415 - `clasper --help` does without Celery

    level = ["--loglevel", get_settings().clasper_log_level]
    app.worker_main(["worker", "-E", *level, *ctx.args])
