"""The ``clasper`` command: one file a subcommand, each loaded only when it is called."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from clasper_worker import __version__
from clasper_worker.errors import ClasperError

# command name → (module, one-line help). Importing a module only when its command runs keeps
# `clasper --help` fast and lets `clasper backend` start without loading Celery.
COMMANDS = {
    "up": ("up", "Run everything on this machine, in the foreground."),
    "send": ("send", "Enqueue one agent turn and show its reply."),
    "dispatch": ("dispatch", "Turn undelivered notifications into turns."),
    "heartbeat": ("heartbeat", "Have an agent look whether something needs doing."),
    "standup": ("standup", "Write the day's standup of an agent, or of all."),
    "status": ("status", "Show what waits, runs and is stuck, and who works."),
    "usage": ("usage", "Show what was used of models: requests, tokens, cost."),
    "cancel": ("cancel", "Stop a turn, wherever it is."),
    "dead-letters": ("dead_letters", "Look at messages that were given up; replay or drop them."),
    "worker": ("worker", "Run a Celery worker with our defaults."),
    "beat": ("beat", "Run Celery Beat with our schedule."),
    "serve": ("serve", "Run the HTTP shim."),
    "backend": ("backend", "Run the reference backend (Mission Control, contract v1)."),
    "offline-model": ("offline_model", "Run the offline model (OpenAI chat API, no key needed)."),
    "conformance": ("conformance", "Check a backend against contract v1."),
    "prompt": ("prompt", "Print what a turn would tell the model, and why."),
    "init": ("init", "Write a workspace to start from."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"clasper_worker.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="clasper")
def cli() -> None:
    """Clasper Worker: agent turns on Celery, for a backend that stays the source of truth."""


def main() -> None:
    """Run the command line; a Clasper error is one clear line and exit code 1, not a traceback."""
    try:
        cli(prog_name="clasper")
    except ClasperError as exc:
        click.echo(f"Error ({exc.code}): {exc}", err=True)
        sys.exit(1)
