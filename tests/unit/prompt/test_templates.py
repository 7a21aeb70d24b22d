from pathlib import Path

import pytest

from clasper_worker.prompt.workspace.files import MAX_FILE_CHARS
from clasper_worker.prompt.workspace.reader import WorkspaceReader
from clasper_worker.prompt.workspace.skills import Host
from clasper_worker.prompt.workspace.snapshot import TOP_FILES
from clasper_worker.prompt.workspace.templates import TEMPLATES, TemplateName, template_files
from clasper_worker.tools.mission_control_tools import MISSION_CONTROL_TOOLS

REPOSITORY = Path(__file__).parents[3]
TOOLS = {tool.name for tool in MISSION_CONTROL_TOOLS}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_a_workspace_without_a_warning(
    name: TemplateName, tmp_path: Path, host: Host
) -> None:
    for path, text in template_files(name).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, "utf-8")
    reader = WorkspaceReader(tmp_path, host)
    found = reader.read(reader.look())
    assert found.warnings == ()
    assert found.soul_file("default") == "SOUL.md"
    assert {"AGENTS.md", "IDENTITY.md", "HEARTBEAT.md", "TOOLS.md"} <= found.files.keys()
    assert {"task-management", "planning"} <= found.skills.keys()
    assert all(skill.enabled for skill in found.skills.values())
    assert all(file.raw_chars < MAX_FILE_CHARS / 4 for file in found.files.values())


def test_the_multi_agent_template_has_a_writer_and_a_researcher() -> None:
    assert {"souls/writer.md", "souls/researcher.md"} <= template_files("multi-agent").keys()


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_templates_explain_exactly_the_tools_that_exist(name: TemplateName) -> None:
    lines = template_files(name)["TOOLS.md"].splitlines()
    assert {line.split("`")[1] for line in lines if line.startswith("- `")} == TOOLS


def test_the_heartbeat_of_every_template_ends_with_the_word_for_nothing_to_do() -> None:
    for name in TEMPLATES:
        heartbeat = template_files(name)["HEARTBEAT.md"]
        assert heartbeat.rstrip().endswith("reply with exactly: HEARTBEAT_OK")


def test_the_repositorys_workspace_is_the_multi_agent_template() -> None:
    workspace = REPOSITORY / "workspace"
    found = {
        path.relative_to(workspace).as_posix(): path.read_text("utf-8")
        for path in workspace.rglob("*")
        if path.is_file()
    }
    assert found == template_files("multi-agent")


def test_the_documented_example_uses_every_file_of_the_format_without_a_warning(
    host: Host,
) -> None:
    root = REPOSITORY / "docs" / "examples" / "multi-agent" / "workspace"
    reader = WorkspaceReader(root, host)
    found = reader.read(reader.look())
    assert found.warnings == ()
    assert set(TOP_FILES) <= found.files.keys()
    assert {"souls/writer.md", "souls/researcher.md", "memory/2026-03-02.md"} <= found.files.keys()
    assert {name for name, skill in found.skills.items() if skill.enabled} == {
        *("newsletter", "research-report")
    }
    assert "PRICE_LIST_URL" in (found.skills["price-list"].off_reason or "")
