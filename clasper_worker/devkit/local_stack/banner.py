"""What a person sees once the stack is ready: where everything is, and what to try first."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from clasper_worker import __version__
from clasper_worker.config.settings import Settings
from clasper_worker.devkit.local_stack.plan import Provisions, StackNeeds, StackOptions, StackPlan


def banner(
    settings: Settings,
    needs: StackNeeds,
    provisions: Provisions,
    options: StackOptions,
    plan: StackPlan,
) -> RenderableType:
    """The addresses, and what runs offline or in memory. No secrets."""
    notes = {
        "shim": "HTTP API, explained at /docs",
        "backend": _backend_note(needs, provisions, options),
        "model": _model_note(settings, needs),
        "broker": _broker_note(needs, provisions),
        "flower": "every turn, live",
    }
    table = Table.grid(padding=(0, 2))
    for name, note in notes.items():
        if name in plan.urls or name == "model":
            address = plan.urls.get(name, settings.llm_model_default)
            table.add_row(Text(name, "bold"), Text(address, "cyan"), Text(note, "dim"))
    title = Text.assemble(
        (f"Clasper Worker {__version__} is up.", "bold green"), " Ctrl-C stops it."
    )
    return Group("", title, "", Padding(table, (0, 0, 0, 2)), "")


def first_try() -> RenderableType:
    """A first command, to be copied: show it without breaking its line."""
    return Text.assemble("Try it:  ", (first_command(), "bold"), "\n")


def first_command() -> str:
    """A command that works as it stands, in another terminal in the same folder."""
    ours = Path(sys.executable).parent / "clasper"
    on_path = shutil.which("clasper")
    if on_path and Path(on_path).resolve() == ours.resolve():
        program = "clasper"
    elif ours.is_relative_to(Path.cwd()):
        program = str(ours.relative_to(Path.cwd()))
    else:
        program = str(ours)
    state_dir = os.environ.get("CLASPER_STATE_DIR")
    prefix = f"CLASPER_STATE_DIR={state_dir} " if state_dir else ""
    return f'{prefix}{program} send --user u1 "Hello"'


def _backend_note(needs: StackNeeds, provisions: Provisions, options: StackOptions) -> str:
    if not needs.backend:
        return "yours (BACKEND_URL)"
    where = "data in memory" if options.ephemeral else f"data in {provisions.data_dir}/backend.db"
    return f"open it in a browser: chat, tasks, documents; {where}"


def _model_note(settings: Settings, needs: StackNeeds) -> str:
    if needs.model:
        return "offline, answers by rules; set OPENAI_API_KEY for a real one"
    return f"{settings.llm_provider}, {settings.llm_model_default}"


def _broker_note(needs: StackNeeds, provisions: Provisions) -> str:
    if not needs.broker or provisions.redis is None:
        return "yours (CELERY_BROKER_URL)"
    if not provisions.redis.durable:
        return f"{provisions.redis.describe()}: what is queued is lost when this stops"
    return f"{provisions.redis.describe()}; data in {provisions.data_dir}/redis"
