"""The results as a table for a terminal, as Markdown in a document, and as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.chaos.results import RowResult

BEGIN = "<!-- chaos:begin -->"
END = "<!-- chaos:end -->"

_COLUMNS = (
    ("faults", "faults"),
    ("turns", "turns in"),
    ("completed", "completed"),
    ("failed", "failed"),
    ("lost", "lost"),
    ("doubled", "posted twice"),
    ("repeated", "model calls repeated"),
    ("unfenced", "posts of the frozen"),
    ("disorder", "out of order"),
    ("crashed", "workers crashed"),
    ("misheard", "listeners misled"),
)


def show(results: Sequence[RowResult], console: Console) -> None:
    """Print the table, and what there is to say of rows that broke a promise."""
    table = Table(title="Fault matrix", title_justify="left")
    table.add_column("fault", max_width=34)
    for _, label in _COLUMNS:
        table.add_column(label, justify="right")
    table.add_column("409", justify="right")
    table.add_column("recovery p50, max (s)", justify="right")
    table.add_column("settled after (s)", justify="right")
    table.add_column("", justify="left")
    for result in results:
        cells = [_cell(result, name) for name, _ in _COLUMNS]
        verdict = "[red]BROKEN[/]" if result.broken else "[green]ok[/]"
        table.add_row(
            f"{result.title} [dim]({result.name})[/]",
            *cells,
            str(result.conflicts),
            recovery(result),
            settled(result),
            verdict,
        )
    console.print(table)


def explain(result: RowResult, console: Console) -> None:
    """Say how a row went, with its evidence."""
    verdict = f"broken: {', '.join(result.broken)}" if result.broken else "ok"
    console.print(
        f"{result.name}: {verdict} ({result.turns} turns, {result.completed} completed,"
        f" {result.faults} faults, {result.seconds:.0f} s, seed {result.seed})",
        markup=False,
    )
    for line in result.evidence:
        console.print(f"    {line}", markup=False, highlight=False)


def markdown(results: Sequence[RowResult], run: Mapping[str, Any]) -> str:
    """The table for the documentation."""
    labels = [
        "fault",
        *(label for _, label in _COLUMNS),
        "recovery p50, max (s)",
        "settled after (s)",
    ]
    lines = [
        (
            f"{run['date']}, {run['cores']} cores, Python {run['python']}, Celery {run['celery']},"
            f" Redis {run['redis']}, seed {run['seed']}."
        ),
        "",
        f"| {' | '.join(labels)} |",
        f"|---|{'---:|' * (len(labels) - 1)}",
    ]
    for result in results:
        cells = [_figure(result, name) for name, _ in _COLUMNS]
        lines.append(
            f"| {result.title} | {' | '.join(cells)} | {recovery(result)} | {settled(result)} |"
        )
    return "\n".join(lines)


def put_into(document: Path, text: str) -> None:
    """Replace what stands between the markers of a document.

    Raises:
        ValueError: it has no markers.
    """
    before, begin, rest = document.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document.name} has no {BEGIN} … {END}")
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}", "utf-8")


def write_json(path: Path, results: Sequence[RowResult], run: Mapping[str, Any]) -> None:
    """Write everything that was counted."""
    whole = {"run": dict(run), "rows": [result.as_json() for result in results]}
    path.write_text(json.dumps(whole, indent=1) + "\n", "utf-8")


def read_json(path: Path) -> tuple[list[RowResult], dict[str, Any]]:
    """What `write_json` wrote."""
    whole = json.loads(path.read_text("utf-8"))
    return [RowResult(**row) for row in whole["rows"]], whole["run"]


def describe_run(seed: int, redis: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader must know of the run."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "celery": version("celery"),
        "redis": redis,
        "seed": seed,
        "options": dict(options),
    }


def recovery(result: RowResult) -> str:
    """Median and longest recovery, for a cell."""
    if result.recovery_p50 is None:
        return "-"
    return f"{result.recovery_p50:.1f}, {result.recovery_max:.1f}"


def settled(result: RowResult) -> str:
    """From the last fault to the last reply, for a cell."""
    return "-" if result.settled is None else f"{result.settled:.1f}"


def _cell(result: RowResult, name: str) -> str:
    value = _figure(result, name)
    return f"[red]{value}[/]" if name in result.broken else value


def _figure(result: RowResult, name: str) -> str:
    value = getattr(result, name)
    return "-" if value is None else str(value)
