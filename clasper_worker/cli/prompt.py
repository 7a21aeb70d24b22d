"""``clasper prompt``: what a turn would tell the model, and why."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import structlog

from clasper_worker.settings import Settings, load_settings

if TYPE_CHECKING:
    from clasper_worker.prompt.snapshot import WorkspaceSnapshot
    from clasper_worker.turn.opening import TurnPrompt

DEFAULT_MESSAGE = "(the message)"

_EMBEDDING_SECONDS = 120.0


@click.command(
    name="prompt",
    epilog='Example: clasper prompt --role writer --message "Draft the newsletter" --smart',
)
@click.option("--role", help="The agent's role (AGENT_ROLE, default).")
@click.option("--message", default=DEFAULT_MESSAGE, help="The person's message.")
@click.option("--user", "user_id", default="user", show_default=True, help="The tenant's user.")
@click.option("--workspace", help="A name of CLASPER_WORKSPACES; else the default one.")
@click.option("--path", type=click.Path(path_type=Path), help="A workspace folder to look at.")
@click.option("--task-title", help="Title of the task that the turn belongs to.")
@click.option("--metadata", "metadata_text", help="Further switches of the request, as JSON.")
@click.option(
    "--smart/--full",
    "smart",
    default=None,
    help="With or without smart context (CLASPER_SMART_CONTEXT).",
)
@click.option("--text/--no-text", default=True, help="Whether to print what is sent.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(
    *, path: Path | None, smart: bool | None, text: bool, as_json: bool, **asked: str | None
) -> None:
    """Print exactly what a turn would send: sections, sizes, what was chosen and what was cut."""
    given = {"clasper_workspace": path, "clasper_smart_context": smart}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    _log_errors_alone()
    metadata = _metadata(asked["metadata_text"])
    if asked["workspace"] is not None:
        metadata["workspace"] = asked["workspace"]
    fields = {
        "user_id": asked["user_id"],
        "agent_role": asked["role"] or settings.agent_role,
        "message": asked["message"],
        "task_title": asked["task_title"],
        "metadata": metadata,
    }
    request = {name: value for name, value in fields.items() if value is not None}
    snapshot, found, seconds = asyncio.run(_build(settings, request))
    report = _report(snapshot, found, settings, seconds)
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print(report, text=text)


def _log_errors_alone() -> None:
    """Keep standard output for the report, which tells the warnings too."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _metadata(text: str | None) -> dict[str, Any]:
    try:
        value = {} if text is None else json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise click.BadParameter("must be a JSON object", param_hint="--metadata")
    return value


async def _build(
    settings: Settings, fields: dict[str, Any]
) -> tuple[WorkspaceSnapshot, TurnPrompt, float]:
    """The turn's workspace and prompt, and the seconds that choosing and building took, warm."""
    from openai import AsyncOpenAI  # noqa: PLC0415 - `clasper prompt --help` does without

    from clasper_worker.agent_context import AgentContext, prompt_settings  # noqa: PLC0415
    from clasper_worker.tools.mission_control_tools import MISSION_CONTROL_TOOLS  # noqa: PLC0415
    from clasper_worker.turn.opening import turn_prompt  # noqa: PLC0415
    from clasper_worker.turn.request import parse_send_request  # noqa: PLC0415

    request = parse_send_request(fields)
    key = settings.openai_api_key
    llm = AsyncOpenAI(
        api_key=key.get_secret_value() if key else "none",
        base_url=settings.openai_base_url or "https://api.openai.com/v1",
    )
    context = await asyncio.to_thread(AgentContext.open, settings, llm)
    try:
        snapshot = context.workspaces.snapshot(request.metadata.workspace, request.user_id)
        if context.smart is not None:
            await context.smart.settled(snapshot, _EMBEDDING_SECONDS)

        async def build() -> TurnPrompt:
            return await turn_prompt(
                request,
                snapshot,
                smart=context.smart,
                settings=prompt_settings(settings),
                now=datetime.now(UTC),
                task_title=request.task_title,
                tool_names=tuple(tool.name for tool in MISSION_CONTROL_TOOLS),
            )

        await build()  # the first one makes what the others share
        started = time.perf_counter()
        found = await build()
        return snapshot, found, time.perf_counter() - started
    finally:
        context.close()
        await llm.close()


def _report(
    snapshot: WorkspaceSnapshot, found: TurnPrompt, settings: Settings, seconds: float
) -> dict[str, Any]:
    from clasper_worker.token_estimate import estimate_tokens  # noqa: PLC0415

    selection = found.selection
    sections = [
        {
            "name": section.name,
            "part": section.part,
            "source": section.source,
            "chars": len(section.text),
            "estimatedTokens": estimate_tokens(section.text),
        }
        for section in found.prompt.sections
    ]
    warnings = [f"{item.subject}: {item.problem}" for item in found.prompt.warnings]
    report: dict[str, Any] = {
        "workspacePath": str(snapshot.root),
        "smartContext": {
            "enabled": settings.clasper_smart_context,
            "ranker": None if selection is None else selection.ranker,
            "problem": None if selection is None else selection.problem,
            "candidates": []
            if selection is None
            else [
                {
                    "kind": item.kind,
                    "name": item.name,
                    "score": round(item.score, 4),
                    "estimatedTokens": item.tokens,
                    "chosen": item.left_out is None,
                    "leftOut": item.left_out,
                }
                for item in selection.candidates
            ],
        },
        "sections": sections,
        "warnings": [*warnings, *map(str, snapshot.warnings)],
        "buildMilliseconds": round(seconds * 1000, 3),
        "estimatedTokens": {
            "system": estimate_tokens(found.prompt.system),
            "newestMessage": estimate_tokens(found.newest),
        },
        "messages": [
            {"role": "system", "content": found.prompt.system},
            {"role": "user", "content": found.newest},
        ],
    }
    return report


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
    click.echo(
        f"  in all ~{tokens['system']:,} tokens of system prompt and ~{tokens['newestMessage']:,}"
        f" of newest message (estimates); chosen and built in {report['buildMilliseconds']:g} ms"
    )
    _print_choice(report["smartContext"])
    for warning in report["warnings"]:
        click.secho(f"Warning: {warning}", fg="yellow")


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
