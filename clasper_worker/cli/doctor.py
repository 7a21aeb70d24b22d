"""``clasper doctor``: what is wrong here, and how to fix it."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

import click

from clasper_worker.cli import doctor_probes as probes
from clasper_worker.cli.doctor_probes import Finding
from clasper_worker.config.settings import Settings, load_settings
from clasper_worker.errors import ClasperError, ConfigurationError

Probe = Callable[[Settings], Iterator[Finding]]
PROBES: tuple[Probe, ...] = (
    probes.configuration,
    probes.redis_servers,
    probes.workers,
    probes.beat,
    probes.backend,
    probes.workspace,
    probes.model_key,
)
_SECONDS = 5.0  # with imports, on a busy machine, 15 s for all
_SIGNS = {"ok": "ok     ", "warning": "WARNING", "problem": "PROBLEM"}


@click.command(epilog="Example: clasper doctor --json")
@click.option("--model", "with_model", is_flag=True, help="Also make one short call of the model.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, with_model: bool, as_json: bool) -> None:
    """Look at configuration, Redis, workers, Beat, backend, workspace and model.

    All at once, 15 seconds at most. Exit code 1 where something is a problem.
    """
    try:
        settings = load_settings()
    except ConfigurationError as exc:
        fix = "set the variable that it names"
        found: Sequence[Finding] = [Finding("configuration", "problem", str(exc), fix)]
        hangs = False
    else:
        found, hangs = look(settings, (*PROBES, probes.model_call) if with_model else PROBES)
    bad = any(one.level == "problem" for one in found)
    if as_json:
        status = "problem" if bad else "ok"
        click.echo(json.dumps({"status": status, "findings": [asdict(one) for one in found]}))
    else:
        for one in found:
            click.echo(f"{_SIGNS[one.level]}  {one.part:<14}{one.what}")
            if one.fix:
                click.echo(f"{'':25}→ {one.fix}")
    code = 1 if bad else 0
    if hangs:
        _leave_at_once(code)
    sys.exit(code)


def _leave_at_once(code: int) -> None:
    """End the process without the interpreter's wait for threads of executors that hang."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def look(
    settings: Settings, chosen: Sequence[Probe], seconds: float | None = None
) -> tuple[tuple[Finding, ...], bool]:
    """Run probes side by side; one that does not end in time is a finding itself.

    Args:
        settings: what to look at.
        chosen: the probes; their findings come in this order.
        seconds: for all of them together; 5 unless given.

    Returns:
        What was found, and whether a probe still hangs.
    """
    results: list[list[Finding]] = [[] for _ in chosen]
    # Threads that nobody waits for: a name server that hangs can be interrupted by nothing.
    threads = [
        threading.Thread(target=_run, args=(probe, settings, result), daemon=True)
        for probe, result in zip(chosen, results, strict=True)
    ]
    for thread in threads:
        thread.start()
    seconds = _SECONDS if seconds is None else seconds
    deadline = time.monotonic() + seconds
    found: list[Finding] = []
    for probe, thread, result in zip(chosen, threads, results, strict=True):
        thread.join(max(0.0, deadline - time.monotonic()))
        found += result
        if thread.is_alive():
            what = f"no answer within {seconds:.0f} s"
            fix = "see whether its host can be reached from here"
            found.append(Finding(_part(probe), "problem", what, fix))
    return tuple(found), any(thread.is_alive() for thread in threads)


def _part(probe: Probe) -> str:
    return probe.__name__.partition("_")[0]


def _run(probe: Probe, settings: Settings, result: list[Finding]) -> None:
    try:
        for finding in probe(settings):
            result.append(finding)  # noqa: PERF402 - what came before an error counts
    except ClasperError as exc:
        result.append(Finding(_part(probe), "problem", str(exc), "see the variable that it names"))
    except Exception as exc:  # noqa: BLE001 - a doctor looks on; the text may hold secrets
        what = f"could not be looked at: {type(exc).__name__}"
        result.append(Finding(_part(probe), "problem", what, "see the findings above"))
