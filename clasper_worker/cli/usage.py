"""``clasper usage``: what was used of models, as the workers counted it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import click

from clasper_worker.config.settings import Settings, load_settings
from clasper_worker.engine.redis.scripts import redis_client
from clasper_worker.usage.counters import DIMENSIONS, KEPT_DAYS, Dimension, Totals, as_told, total
from clasper_worker.usage.report import kept_days, usage_by_day, usage_by_name

_BY = ("day", *DIMENSIONS)


@click.command(name="usage", epilog="Example: clasper usage --user u1 --since 2026-03-01")
@click.option("--user", help="Of this user alone.")
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d"]),
    help=f"From this day on, in UTC; {KEPT_DAYS} days are kept.",
)
@click.option(
    "--by", type=click.Choice(_BY), default="day", show_default=True, help="What to list it by."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, user: str | None, since: datetime | None, by: str, as_json: bool) -> None:
    """Show requests, tokens and cost."""
    if user is not None and by != "day":
        raise click.UsageError("--user is listed by day: leave --by out")
    rows = asyncio.run(_read(load_settings(), user, since.date() if since else None, by))
    if as_json:
        click.echo(
            json.dumps(
                {
                    **as_told(total(rows.values())),
                    "by": by,
                    "items": [{by: name, **as_told(one)} for name, one in rows.items()],
                }
            )
        )
    else:
        _print(rows, by)


async def _read(
    settings: Settings, user: str | None, since: date | None, by: str
) -> Mapping[str, Totals]:
    days = kept_days(since)
    async with redis_client(settings.redis_url, settings) as client:
        if by == "day":
            of_user: Dimension | None = None if user is None else "user"
            found = await usage_by_day(client, days, of_user, user or "")
            return {str(day): one for day, one in found.items()}
        return await usage_by_name(client, days, next(one for one in DIMENSIONS if one == by))


def _print(rows: Mapping[str, Totals], by: str) -> None:
    width = max([len(by), len("total"), *map(len, rows)])
    click.echo(f"{by:<{width}} {'requests':>9} {'input':>12} {'output':>12} {'USD':>12}")
    for name, one in [*rows.items(), ("total", total(rows.values()))]:
        click.echo(
            f"{name:<{width}} {one.requests:>9,} {one.input_tokens:>12,}"
            f" {one.output_tokens:>12,} {_cost(one):>12}"
        )


def _cost(one: Totals) -> Any:
    if one.cost_usd is None:
        return "not known"
    return f"{one.cost_usd:,.4f}{'+' if one.unpriced else ''}"
