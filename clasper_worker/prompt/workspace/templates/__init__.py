"""Workspaces to start from, as ``clasper init`` writes them.

A template is the files of ``common/`` with its own folder's files over them.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Literal, get_args

TemplateName = Literal["single", "multi-agent", "support"]

TEMPLATES: tuple[TemplateName, ...] = get_args(TemplateName)


def template_files(name: TemplateName) -> dict[str, str]:
    """The files of a template: path inside the workspace (``/`` separated) to text, sorted."""
    root = files(__name__)
    found = dict(_walk(root / "common", "")) | dict(_walk(root / name, ""))
    return dict(sorted(found.items()))


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".md"):
            yield f"{prefix}{entry.name}", entry.read_text("utf-8")
