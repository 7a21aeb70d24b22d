"""``clasper up``: everything on one machine, in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from pathlib import Path

import click

from clasper_worker.config.settings import load_settings
from clasper_worker.devkit.local_stack.console import StackConsole
from clasper_worker.devkit.local_stack.plan import StackOptions
from clasper_worker.devkit.local_stack.ports import PortWishes
from clasper_worker.devkit.local_stack.stack import prepare_stack, run_stack
from clasper_worker.devkit.local_stack.state_file import only_stack, prepare_state_dir
from clasper_worker.startup_checks import refuse_contradictions

_PORT = click.IntRange(0, 65_535)


@click.command(
    "up",
    epilog="""\b
Example:
  clasper up
  clasper send --user u1 "Hello"      (in another terminal)
""",
)
@click.option(
    "--port", type=_PORT, metavar="PORT", help="Port of the HTTP shim (CLASPER_PORT, else 8081)."
)
@click.option(
    "--broker-port", type=_PORT, metavar="PORT", help="Port of the stack's own Redis (6379)."
)
@click.option(
    "--backend-port", type=_PORT, metavar="PORT", help="Port of the reference backend (9001)."
)
@click.option("--model-port", type=_PORT, metavar="PORT", help="Port of the offline model (9100).")
@click.option("--flower-port", type=_PORT, metavar="PORT", help="Port of Flower (5555).")
@click.option("--no-flower", is_flag=True, help="Run without Flower.")
@click.option("--no-beat", is_flag=True, help="Run without Beat: nothing happens on a schedule.")
@click.option(
    "--processes", type=click.IntRange(1), default=1, help="Worker processes; one unless given."
)
@click.option("--concurrency", type=click.IntRange(1), help="Turns at a time in each of them.")
@click.option("--ephemeral", is_flag=True, help="Keep nothing: all data goes when it stops.")
@click.option(
    "--json", "as_json", is_flag=True, help="When ready, print the URLs as one JSON line."
)
def command(  # noqa: PLR0913 - click passes one argument an option
    *,
    port: int | None,
    broker_port: int | None,
    backend_port: int | None,
    model_port: int | None,
    flower_port: int | None,
    no_flower: bool,
    no_beat: bool,
    processes: int,
    concurrency: int | None,
    ephemeral: bool,
    as_json: bool,
) -> None:
    """Run everything on this machine, in the foreground; Ctrl-C stops it.

    Redis, the worker, Beat, the HTTP shim and Flower; also the reference backend while BACKEND_URL
    is unset, and the offline model while no model is configured (OPENAI_API_KEY or
    OPENAI_BASE_URL). A usual port that is taken is replaced by a free one; a port that you ask for
    is not, and 0 is any free one. Other commands in this folder find the stack by themselves.
    """
    settings = load_settings()
    refuse_contradictions(settings)
    state_dir = settings.clasper_state_dir
    prepare_state_dir(state_dir)
    with contextlib.ExitStack() as exits:
        exits.enter_context(only_stack(state_dir))
        data_dir = state_dir
        if ephemeral:
            folder = tempfile.TemporaryDirectory(prefix="clasper-up-")
            data_dir = Path(exits.enter_context(folder))
        stack = prepare_stack(
            load_settings(),  # again: what a killed stack left behind is gone only now
            StackOptions(not no_flower, not no_beat, processes, concurrency, ephemeral),
            PortWishes(broker_port, backend_port, model_port, port, flower_port),
            data_dir,
        )
        console = StackConsole(sys.stderr if as_json else sys.stdout, stack.names)

        def on_ready() -> None:
            if as_json:
                click.echo(json.dumps(dict(stack.plan.urls)))

        asyncio.run(run_stack(stack, console, on_ready))
