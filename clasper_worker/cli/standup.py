"""``clasper standup``: the day's standup of an agent, or of all."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Sequence
from dataclasses import replace

import click

from clasper_worker.config.local_time import check_timezone
from clasper_worker.config.settings import Settings, get_settings
from clasper_worker.errors import ClasperError, ConfigurationError
from clasper_worker.observability.logs import configure_logging
from clasper_worker.periodic.agents import Agent
from clasper_worker.periodic.standup import StandupReport, StandupRules, run_standup
from clasper_worker.process import Jobs
from clasper_worker.runtime import Runtime


def _timezone(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    try:
        return value if value is None else check_timezone(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


@click.command(name="standup", epilog="Example: clasper standup --user u1 --timezone Europe/Berlin")
@click.option("--user", "user_id", help="The user to act for (USER_ID); else all agents.")
@click.option("--role", "agent_role", help="The agent's role (AGENT_ROLE, default).")
@click.option(
    "--timezone",
    callback=_timezone,
    help="IANA name; else the agent's own, else STANDUP_TIMEZONE.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be posted, and post nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print what became of each as JSON.")
def command(
    *,
    user_id: str | None,
    agent_role: str | None,
    timezone: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make today's standup of an agent, or of all that CLASPER_AGENTS or the backend names.

    A day that has one is left as it is. Exit code 0 only if no standup failed.
    """
    settings = get_settings()
    configure_logging(settings, level="WARNING")
    try:
        one = {"user_id": user_id, "agent_role": agent_role or settings.agent_role}
        chosen = [Agent.of(one)] if user_id else None
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    is_well = asyncio.run(_standups(settings, chosen, timezone, dry_run=dry_run, as_json=as_json))
    sys.exit(0 if is_well else 1)


async def _standups(
    settings: Settings,
    chosen: Sequence[Agent] | None,
    timezone: str | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> bool:
    runtime = await Runtime.open(settings)
    jobs = Jobs.open(settings)
    failed = 0
    try:
        agents = chosen or await jobs.roster(runtime.internal).agents()
        if agents is None:
            raise ConfigurationError(
                "Whose standup? Set USER_ID or CLASPER_AGENTS, or use a backend that lists its"
                " agents (feature agents)",
                {"variable": "CLASPER_AGENTS"},
            )
        rules = StandupRules.from_settings(settings)
        for agent in agents:
            try:
                report = await run_standup(
                    replace(agent, timezone=timezone or agent.timezone),
                    runtime.turns,
                    jobs.slots,
                    rules,
                    holder=str(uuid.uuid4()),
                    dry_run=dry_run,
                )
            except ClasperError as exc:
                failed += 1
                click.echo(f"{agent.user_id} ({agent.agent_role}): {exc}", err=True)
            else:
                _show(agent, report, as_json=as_json)
    finally:
        await jobs.close()
        await runtime.close()
    if not agents:
        click.echo(
            "The backend lists no agents (feature agents): name some in CLASPER_AGENTS, or one by"
            " --user",
            err=True,
        )
    if not failed and not as_json:
        click.echo("1 agent" if len(agents) == 1 else f"{len(agents)} agents")
        click.echo("standup_ok")
    return not failed


def _show(agent: Agent, report: StandupReport, *, as_json: bool) -> None:
    who = {"user_id": agent.user_id, "agent_role": agent.agent_role}
    if as_json:
        click.echo(json.dumps({**who, **report.as_json(), "text": report.text}))
        return
    if report.status == "dry_run":
        told = "the backend would write it" if report.text is None else "not posted"
        click.echo(f"{agent.user_id} ({agent.agent_role}): {report.day} {told}")
    else:
        by = f", by the {report.source}" if report.source else ""
        click.echo(f"{agent.user_id} ({agent.agent_role}): {report.day} {report.status}{by}")
    if report.text:
        click.echo(f"\n{report.text}\n")
