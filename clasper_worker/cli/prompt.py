"""``clasper prompt``: what a turn would tell the model, and why."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import click
import structlog

from clasper_worker.config.settings import Settings, load_settings

DEFAULT_MESSAGE = "(the message)"


@click.command(
    name="prompt",
    epilog='Example: clasper prompt --role writer --message "Draft the newsletter" --smart',
)
@click.option("--role", help="The agent's role (AGENT_ROLE, default).")
@click.option("--message", help="The person's message.")
@click.option("--user", "user_id", help="The tenant's user.")
@click.option("--workspace", help="A name of CLASPER_WORKSPACES; else the default one.")
@click.option("--path", type=click.Path(path_type=Path), help="A workspace folder to look at.")
@click.option("--task-title", help="Title of the task that the turn belongs to.")
@click.option("--metadata", "metadata_text", help="Further switches of the request, as JSON.")
@click.option(
    "--request",
    "request_file",
    type=click.File(encoding="utf-8"),
    help="A whole send request as JSON, history and all, from a file or - (standard input);"
    " the options above go before its fields.",
)
@click.option(
    "--smart/--full",
    "smart",
    default=None,
    help="With or without smart context (CLASPER_SMART_CONTEXT).",
)
@click.option("--text/--no-text", default=True, help="Whether to print what is sent.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option("--strict", is_flag=True, help="Exit 1 if there is any warning, and list them.")
def command(
    *,
    path: Path | None,
    smart: bool | None,
    text: bool,
    as_json: bool,
    strict: bool,
    request_file: TextIO | None,
    **asked: str | None,
) -> None:
    """Print exactly what a turn would send: sections, sizes, what was chosen and what was cut."""
    given = {"clasper_workspace": path, "clasper_smart_context": smart}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    _log_errors_alone()
    request = _request(asked, request_file, settings)
    from clasper_worker.turn.prompt_report import prompt_report  # noqa: PLC0415 - `--help` does without

    report = asyncio.run(prompt_report(settings, request))
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print(report, text=text)
    if strict and report["warnings"]:
        count = len(report["warnings"])
        click.secho(f"{count} {'problem' if count == 1 else 'problems'}:", fg="red", err=True)
        for warning in report["warnings"]:
            click.echo(f"  {warning}", err=True)
        sys.exit(1)


def _log_errors_alone() -> None:
    """Keep standard output for the report, which tells the warnings too."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _request(
    asked: Mapping[str, str | None], file: TextIO | None, settings: Settings
) -> dict[str, Any]:
    """The send request that the options and the file describe."""
    given = {} if file is None else _json_object(file.read(), "--request")
    metadata = given.pop("metadata", None) or {}
    if not isinstance(metadata, dict):
        raise click.BadParameter("metadata must be a JSON object", param_hint="--request")
    if (switches := asked["metadata_text"]) is not None:
        metadata = metadata | _json_object(switches, "--metadata")
    if asked["workspace"] is not None:
        metadata["workspace"] = asked["workspace"]
    options = {
        "user_id": asked["user_id"],
        "agent_role": asked["role"],
        "message": asked["message"],
        "task_title": asked["task_title"],
    }
    given |= {name: value for name, value in options.items() if value is not None}
    given.setdefault("user_id", "user")
    given.setdefault("message", DEFAULT_MESSAGE)
    if given.get("session_key") is None and settings.agent_role:
        given.setdefault("agent_role", settings.agent_role)
    return {**given, "metadata": metadata}


def _json_object(text: str, option: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise click.BadParameter("must be a JSON object", param_hint=option)
    return value


def _print(report: dict[str, Any], *, text: bool) -> None:
    if text:
        for message in report["messages"]:
            click.secho(f"──── {message['role']} ────", fg="cyan", bold=True)
            click.echo(message["content"])
            click.echo()
    click.secho(f"Sections ({report['workspacePath']})", bold=True)
    for item in report["sections"]:
        where = "message" if item["part"] == "turn_context" else "system "
        size = f"{item['chars']:>7,} chars  ~{item['estimatedTokens']:>6,} tokens"
        click.echo(f"  {where}  {size}  {item['name']}  ({item['source']})")
    tokens = report["estimatedTokens"]
    history = report["history"]
    if history["told"] or history["leftOut"]:
        cut = f"; {history['leftOut']} older ones do not fit" if history["leftOut"] else ""
        click.echo(f"  history  {history['told']} messages, ~{tokens['history']:,} tokens{cut}")
    click.echo(f"  tools    {len(report['tools'])}, ~{tokens['tools']:,} tokens (--json has them)")
    click.echo(
        f"  in all ~{tokens['system']:,} tokens of system prompt and ~{tokens['newestMessage']:,}"
        f" of newest message (estimates); chosen and built in {report['buildMilliseconds']:g} ms"
    )
    _print_choice(report["smartContext"])
    for skill in report["skillsOff"]:
        click.echo(f"Off: skill {skill['name']}: {skill['reason']}")
    for warning in report["warnings"]:
        click.secho(f"Warning: {warning}", fg="yellow")
    for note in report["notes"]:
        click.echo(f"Note: {note}.")


def _print_choice(smart: dict[str, Any]) -> None:
    if not smart["enabled"]:
        click.echo("Smart context is off: the full context is told (CLASPER_SMART_CONTEXT).")
        return
    click.secho(f"Smart context, ranked by {smart['ranker'] or 'nothing'}", bold=True)
    if smart["problem"]:
        click.secho(f"  not as configured: {smart['problem']}", fg="yellow")
    for item in smart["candidates"]:
        mark = "+" if item["chosen"] else "-"
        why = "" if item["chosen"] else f"  {item['leftOut']}"
        size = f"~{item['estimatedTokens']:,} tokens"
        click.echo(f"  {mark} {item['kind']:6}  {item['score']:8.3f}  {item['name']}  {size}{why}")
    if not smart["candidates"]:
        click.echo("  nothing fits the message")
