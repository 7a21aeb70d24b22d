"""``python -m tests.chaos``: run the fault matrix, print it, write it down."""

from __future__ import annotations

import dataclasses
import secrets
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
from rich.console import Console

from clasper_worker.devkit.local_stack.redis_binary import find_redis
from tests.chaos.options import FLUSHED, Options
from tests.chaos.report import (
    describe_run,
    explain,
    markdown,
    put_into,
    read_json,
    show,
    write_json,
)
from tests.chaos.results import RowResult
from tests.chaos.rows import ROWS, Row, find_rows
from tests.chaos.run import run_row
from tests.chaos.workers import Nursery


@click.command()
@click.option("--row", "names", multiple=True, metavar="NAME", help="This row; may be repeated.")
@click.option("--list", "listing", is_flag=True, help="List the rows.")
@click.option("--quick", is_flag=True, help="Every row in small.")
@click.option("--turns", type=click.IntRange(4), help="For each fault and point.  [20]")
@click.option("--rounds", type=click.IntRange(1), help="Strikes at each point.  [2; quick: 1]")
@click.option("--points", type=click.IntRange(1), help="The first so many points.  [all]")
@click.option("--kills", type=click.IntRange(1), help="Random kills.  [300; quick: 20]")
@click.option("--many", type=click.IntRange(20), help="Many turns.  [10000; quick: 400]")
@click.option("--notified", type=click.IntRange(20), help="Notifications.  [1000; quick: 60]")
@click.option("--takeovers", type=click.IntRange(1), help="Kills of a Beat.  [6; quick: 2]")
@click.option("--outage-seconds", type=float, help="Length of outages.  [30; quick: 5]")
@click.option("--visibility-seconds", type=float, help="The workers' lease.  [15; quick: 5]")
@click.option(
    "--flush",
    "flushed",
    multiple=True,
    metavar="PATTERN",
    help=f"Keys that redis-flush deletes.  [{' '.join(FLUSHED)}]",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Rows side by side: most of their time is spent waiting.",
)
@click.option("--seed", type=int, help="Of everything random; printed.  [random]")
@click.option(
    "--plain", is_flag=True, default=None, help="Start each worker from nothing instead of by fork."
)
@click.option("--output", type=click.Path(path_type=Path), help="Write the results as JSON.")
@click.option(
    "--document",
    type=click.Path(path_type=Path, exists=True),
    help="Write the table between this document's markers.",
)
@click.option(
    "--render",
    type=click.Path(path_type=Path, exists=True),
    help="Run nothing: write the table of these earlier results (--output) to --document.",
)
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for all logs and records.")
def main(
    names: tuple[str, ...],
    listing: bool,
    quick: bool,
    jobs: int,
    output: Path | None,
    document: Path | None,
    render: Path | None,
    keep: Path | None,
    **chosen: object,
) -> None:
    """Run the fault matrix; exit code 1 if a promise was broken.

    \b
    Example: python -m tests.chaos --quick --row kill --row redis-kill
    """
    console = Console(width=None if sys.stdout.isatty() else 160)
    if listing:
        for row in ROWS:
            console.print(f"{row.name:14} {row.title}", highlight=False)
        return
    if render is not None:
        if document is None:
            raise click.UsageError("--render needs --document")
        put_into(document, markdown(*read_json(render)))
        return
    try:
        rows = find_rows(names)
    except KeyError as exc:
        raise click.BadParameter(f"no row {exc.args[0]!r}; see --list") from None
    rows = _playable(rows, console)
    redis = find_redis()
    if redis is None:
        raise click.ClickException("There is no Redis server here: install redis-server.")
    options = _options(quick, chosen)
    folder = keep or Path(tempfile.mkdtemp(prefix="clasper-chaos-"))
    console.print(f"seed {options.seed}; logs and records: {folder}", highlight=False)
    results = _play(rows, options, folder, jobs, console)
    show(results, console)
    about = describe_run(options.seed, redis.version, dataclasses.asdict(options))
    if output:
        write_json(output, results, about)
    if document:
        put_into(document, markdown(results, about))
    sys.exit(len(results) < len(rows) or any(result.broken for result in results))


def _playable(rows: tuple[Row, ...], console: Console) -> tuple[Row, ...]:
    """The rows for which everything is installed; the others are named."""
    for row in rows:
        if row.missing:
            console.print(f"{row.name}: skipped, {row.missing} is not installed", highlight=False)
    return tuple(row for row in rows if not row.missing)


def _play(
    rows: tuple[Row, ...], options: Options, folder: Path, jobs: int, console: Console
) -> list[RowResult]:
    """Run the rows; the results of those that could be carried out."""
    with Nursery(plain=options.plain) as nursery, ThreadPoolExecutor(jobs) as pool:

        def run(row: Row) -> RowResult | None:
            try:
                result = run_row(row, options, nursery, folder / row.name)
            except Exception:  # noqa: BLE001 - the other rows are worth having
                console.print(f"{row.name}: could not be carried out")
                console.print_exception()
                return None
            explain(result, console)
            return result

        waiting = [pool.submit(run, row) for row in rows if not row.alone]
        ran = [future.result() for future in waiting]
        ran += [run(row) for row in rows if row.alone]
    return [result for result in ran if result is not None]


def _options(quick: bool, chosen: dict[str, object]) -> Options:
    """The options, quick or whole, with what was chosen on top."""
    given = {n: value for n, value in chosen.items() if value is not None and value != ()}
    given.setdefault("seed", secrets.randbelow(10**6))
    base = Options().quick() if quick else Options()
    return dataclasses.replace(base, **given)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
