from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from clasper_worker.cli.init import command
from clasper_worker.errors import WorkspaceError
from clasper_worker.prompt.workspace.templates import TEMPLATES, TemplateName, template_files


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, without settings from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLASPER_WORKSPACE", raising=False)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def written(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): path.read_text("utf-8")
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("template", TEMPLATES)
def test_it_writes_the_template_and_says_what_and_what_next(
    folder: Path, template: TemplateName
) -> None:
    result = run("agents", "--template", template)
    assert result.exit_code == 0
    assert written(folder / "agents") == template_files(template)
    for name in template_files(template):
        assert f"wrote agents/{name}" in result.output
    assert "set CLASPER_WORKSPACE=agents" in result.output
    # A support agent knows nothing of the product until its author has written it down.
    assert ("agents/skills/<topic>/SKILL.md" in result.output) == (template == "support")
    assert "clasper up" in result.output


def test_without_a_path_it_writes_the_workspace_that_the_settings_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run().exit_code == 0
    assert (folder / "workspace/AGENTS.md").exists()
    monkeypatch.setenv("CLASPER_WORKSPACE", "elsewhere/ws")
    assert run().exit_code == 0
    assert (folder / "elsewhere/ws/AGENTS.md").exists()


def test_it_refuses_to_overwrite_and_writes_nothing_at_all(folder: Path) -> None:
    (folder / "workspace").mkdir()
    (folder / "workspace/SOUL.md").write_text("mine")
    result = run()
    assert result.exit_code != 0
    assert isinstance(result.exception, WorkspaceError)
    assert "SOUL.md" in str(result.exception)
    assert "--force" in str(result.exception)
    assert written(folder / "workspace") == {"SOUL.md": "mine"}


def test_with_force_it_overwrites_its_own_files_and_leaves_others(folder: Path) -> None:
    (folder / "workspace").mkdir()
    (folder / "workspace/SOUL.md").write_text("mine")
    (folder / "workspace/MEMORY.md").write_text("kept")
    assert run("--force").exit_code == 0
    expected = template_files("single") | {"MEMORY.md": "kept"}
    assert written(folder / "workspace") == expected


def test_force_replaces_a_link_and_does_not_write_through_it(folder: Path) -> None:
    (folder / "precious.md").write_text("precious")
    (folder / "workspace").mkdir()
    (folder / "workspace/SOUL.md").symlink_to("../precious.md")
    assert run().exit_code != 0
    assert run("--force").exit_code == 0
    assert (folder / "precious.md").read_text() == "precious"
    assert not (folder / "workspace/SOUL.md").is_symlink()


def test_a_path_that_is_a_file_is_refused(folder: Path) -> None:
    (folder / "notes").write_text("x")
    result = run("notes")
    assert isinstance(result.exception, WorkspaceError)
    assert "is not a folder" in str(result.exception)


def test_a_place_that_cannot_be_written_is_a_clear_error(folder: Path) -> None:
    (folder / "notes").write_text("x")
    result = run("notes/below")
    assert isinstance(result.exception, WorkspaceError)
    assert "Cannot write" in str(result.exception)


def test_the_help_has_an_example() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "clasper init agent-config/workspace --template multi-agent" in result.output
