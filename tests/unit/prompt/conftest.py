from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from clasper_worker.prompt.workspace.reader import WorkspaceReader
from clasper_worker.prompt.workspace.skills import Host
from clasper_worker.prompt.workspace.snapshot import WorkspaceSnapshot

HOST = Host(platform="linux", variables=frozenset(), which={"sh": "/bin/sh"}.get)


def write_files(root: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def skill_text(name: str, *, body: str = "Do it.", extra: str = "") -> str:
    return f"---\nname: {name}\ndescription: Does {name}.\n{extra}---\n{body}\n"


@pytest.fixture
def host() -> Host:
    """A Linux machine without variables, with one program: sh."""
    return HOST


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Mapping[str, str | bytes]], Path]:
    """Write files below a workspace folder and return it."""
    root = tmp_path / "workspace"
    root.mkdir()

    def _write(files: Mapping[str, str | bytes]) -> Path:
        write_files(root, files)
        return root

    return _write


@pytest.fixture
def snapshot(
    write: Callable[..., Path], host: Host
) -> Callable[[Mapping[str, str | bytes]], WorkspaceSnapshot]:
    """Write files and read them as a workspace."""

    def _snapshot(files: Mapping[str, str | bytes]) -> WorkspaceSnapshot:
        reader = WorkspaceReader(write(files), host)
        return reader.read(reader.look())

    return _snapshot


@pytest.fixture
def skill() -> Callable[..., str]:
    """The text of a SKILL.md."""
    return skill_text
