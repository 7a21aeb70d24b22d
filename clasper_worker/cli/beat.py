"""``clasper beat``: Celery Beat with our schedule."""

from __future__ import annotations

import sys

import click

from clasper_worker.config.settings import get_settings
from clasper_worker.observability.logs import configure_logging
from clasper_worker.startup_checks import refuse_contradictions


@click.command(
    name="beat",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    epilog="Example: clasper beat --loglevel INFO",
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Run Celery Beat: `celery -A beat_schedule beat`, plus any of its options.

    Two of them are safe: one leads, the other takes over when it is gone.
    """
    refuse_contradictions(get_settings())
    from beat_schedule import app  # noqa: PLC0415 - `clasper --help` does without Celery
    from clasper_worker.startup_checks import warn_of_doubtful_settings  # noqa: PLC0415 - likewise

    configure_logging(get_settings())
    warn_of_doubtful_settings(get_settings())
    quiet = [] if sys.stderr.isatty() else ["--quiet"]  # its banner is for people
    app.start([*quiet, "beat", *ctx.args])
