"""``clasper cancel``: stop a turn, wherever it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

import click

from clasper_worker.client import ClasperClient
from clasper_worker.config.settings import get_settings
from clasper_worker.engine.queue.cancel import CancelledJob, Canceller

_WORDS = {
    "waiting": "was waiting, and does not run",
    "running": "was running",
    "ended": "had ended before, and is kept",
    "unknown": "is not known; should it come within a day, it will not run",
}


@click.command(
    name="cancel",
    epilog="Example: clasper cancel 0198c0de-0000-7000-8000-000000000000",
)
@click.argument("turn_id")
@click.option(
    "--wait",
    type=click.FloatRange(min=0, max=600),
    default=10.0,
    show_default=True,
    help="Seconds to wait for a running turn to stop.",
)
@click.option(
    "--thorough",
    is_flag=True,
    help="Look through all that waits in the queues, which takes seconds where that is much.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what became of it as JSON.")
def command(*, turn_id: str, wait: float, thorough: bool, as_json: bool) -> None:
    """Stop the turn of this id: queued, waiting behind another of its session, or running.

    Every job that asks for the turn ends REVOKED; what had ended before keeps its result. Exit
    code 0 if the turn has ended, 1 if it still runs or is not known. One that waits behind many
    others may not be found at once (--thorough looks on); it is cancelled when its turn comes.
    """
    settings = get_settings()
    client = ClasperClient.from_settings(settings)
    canceller = Canceller.from_settings(client.app, settings)
    try:
        jobs = canceller.cancel_turn(turn_id, wait=wait, thoroughly=thorough)
    finally:
        canceller.close()
        client.close()
    has_ended = all(job.has_ended for job in jobs)
    if as_json:
        click.echo(json.dumps({"turn_id": turn_id, "ended": has_ended, "jobs": _as_json(jobs)}))
    else:
        for job in jobs:
            click.echo(f"job {job.job_id} {_WORDS[job.found]}{_now(job)}")
    sys.exit(0 if has_ended else 1)


def _as_json(jobs: Iterable[CancelledJob]) -> list[dict[str, str]]:
    return [{"job_id": job.job_id, "found": job.found, "state": job.state} for job in jobs]


def _now(job: CancelledJob) -> str:
    if job.found == "unknown":
        return ""
    if job.has_ended:
        return f": {job.state}"
    return f": asked to stop, {job.state} so far"
