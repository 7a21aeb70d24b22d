"""``clasper init``: write a workspace to start from."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import click

from clasper_worker.config.settings import load_settings
from clasper_worker.errors import WorkspaceError
from clasper_worker.prompt.workspace.templates import TEMPLATES, TemplateName, template_files


@click.command("init")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option(
    "--template",
    type=click.Choice(TEMPLATES),
    default="single",
    show_default=True,
    help="single: one assistant; multi-agent: a coordinator, a writer and a researcher; support:"
    " an agent that answers customers.",
)
@click.option("--force", is_flag=True, help="Overwrite files that exist; others stay.")
def command(path: Path | None, template: TemplateName, force: bool) -> None:
    """Write a workspace to PATH (default: CLASPER_WORKSPACE, else ./workspace).

    \b
    Example:
      clasper init
      clasper init agent-config/workspace --template multi-agent
    """  # noqa: D301 - \b is click's mark for a block that it must not rewrap
    root = load_settings().clasper_workspace if path is None else path
    files = template_files(template)
    _check_target(root, files, force=force)
    for name, text in files.items():
        _write(root / PurePosixPath(name), text)
        click.echo(f"wrote {root / PurePosixPath(name)}")
    click.echo(_next_steps(root, template))


def _check_target(root: Path, files: dict[str, str], *, force: bool) -> None:
    """Refuse before anything is written.

    Raises:
        WorkspaceError: the path is not a folder, or files would be overwritten.
    """
    details = {"path": str(root)}
    if root.exists() and not root.is_dir():
        raise WorkspaceError(f"{root} is not a folder; name another PATH.", details)
    existing = [name for name in files if (root / name).is_symlink() or (root / name).exists()]
    if existing and not force:
        raise WorkspaceError(
            f"{root} holds {', '.join(existing)} already; nothing was written."
            " Name another PATH, or overwrite them with --force.",
            details,
        )


def _write(target: Path, text: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink():
            target.unlink()  # else the text would go wherever the link leads
        target.write_text(text, "utf-8", newline="\n")
    except OSError as exc:
        raise WorkspaceError(
            f"Cannot write {target}: {exc.strerror}.", {"path": str(target)}
        ) from exc


_FACTS = (
    "  - write down what your customers ask about, a topic each in {}/<topic>/SKILL.md:"
    " the agent promises nothing that is not written there"
)


def _next_steps(root: Path, template: TemplateName) -> str:
    lines = ["", "Next:"]
    if root != Path("workspace"):
        lines.append(f"  - set CLASPER_WORKSPACE={root} (environment or .env)")
    souls = f"{root / 'SOUL.md'}" + (f" and {root / 'souls'}/" if template == "multi-agent" else "")
    lines += [
        f"  - say who your agent is in {souls}, and what it must keep to in {root / 'AGENTS.md'}",
        *([_FACTS.format(root / "skills")] if template == "support" else []),
        f"  - see what it would be told: clasper prompt --path {root}",
        "  - start everything on this machine: clasper up",
        "  - send it a first message: clasper send --help",
    ]
    return "\n".join(lines)
