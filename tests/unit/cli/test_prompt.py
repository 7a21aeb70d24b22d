import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result

from clasper_worker.cli import cli
from clasper_worker.errors import InvalidRequestError, WorkspaceError
from clasper_worker.prompt.workspace.templates import template_files

SKILL = "---\nname: {0}\ndescription: About {0}.\n---\nHow to do {0}.\n"


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    files = template_files("multi-agent") | {
        "skills/refunds/SKILL.md": SKILL.format("refunds"),
        "skills/broken/SKILL.md": "---\nmetadata: {oops\n---\n",
        "MEMORY.md": "# Ada\nlikes tea",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")
    return root


@pytest.fixture
def run(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(workspace.parent)

    def _run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["prompt", *arguments])

    return _run


def report(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_what_is_printed_is_what_is_sent_section_by_section(run: Callable[..., Result]) -> None:
    told = report(run("--role", "writer", "--message", "Draft it", "--json"))
    system, newest = told["messages"]
    assert "You are the writer." in system["content"]
    assert newest["content"].endswith("\n\nDraft it")
    names = [section["name"] for section in told["sections"]]
    assert names[:2] == ["soul", "rules"]
    assert {"memory", "skill:planning", "skill:refunds", "time"} <= set(names)
    joined = sum(s["chars"] + 2 for s in told["sections"] if s["part"] == "system") - 2
    assert joined == len(system["content"])
    assert told["smartContext"] == {
        "enabled": False,
        "ranker": None,
        "problem": None,
        "candidates": [],
    }
    assert any("skills/broken/SKILL.md:" in warning for warning in told["warnings"])


def test_a_whole_request_is_shown_with_its_history_and_the_tools(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    history = [
        {"role": "user", "content": "Refund order 7?"},
        {"role": "assistant", "content": "Shall I?"},
    ]
    request = {
        "user_id": "u1",
        "session_key": "user:u1:writer",
        "message": "Yes, please",
        "messages": history,
        "metadata": {"timezone": "Asia/Tokyo"},
    }
    file = tmp_path / "request.json"
    file.write_text(json.dumps(request))
    told = report(run("--request", str(file), "--smart", "--task-title", "Order 7", "--json"))
    system, *between, newest = told["messages"]
    assert "You are the writer." in system["content"]
    assert between == history
    assert "Asia/Tokyo" in newest["content"]
    assert "task title" in newest["content"]
    # So short a message is ranked together with what was said before.
    assert "skill:refunds" in [section["name"] for section in told["sections"]]
    assert told["history"] == {"told": 2, "leftOut": 0}
    assert told["tools"][0]["name"] == "list_tasks"
    assert told["estimatedTokens"]["tools"] > 0
    assert told["notes"] == []


def test_skills_that_are_off_are_named_with_the_reason(
    run: Callable[..., Result], workspace: Path
) -> None:
    assert report(run("--json"))["skillsOff"] == []
    (workspace / "skills/crm").mkdir()
    text = SKILL.format("crm").replace("\n---\n", "\nrequires: {env: CRM_TOKEN_X}\n---\n", 1)
    (workspace / "skills/crm/SKILL.md").write_text(text)
    reason = "environment variable not set: CRM_TOKEN_X"
    assert report(run("--json"))["skillsOff"] == [{"name": "crm", "reason": reason}]
    assert f"Off: skill crm: {reason}" in run().stdout


def test_history_that_does_not_fit_is_left_out_and_counted(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLASPER_CONTEXT_WINDOW_TOKENS", "4000")
    file = tmp_path / "request.json"
    messages = [{"role": "user", "content": "x" * 20_000}, {"role": "user", "content": "short"}]
    file.write_text(json.dumps({"messages": messages}))
    told = report(run("--request", str(file), "--json"))
    assert told["history"] == {"told": 1, "leftOut": 1}
    assert [message["content"] for message in told["messages"][1:-1]] == ["short"]
    assert "1 older ones do not fit" in run("--request", str(file)).stdout


def test_the_default_tasks_title_is_told_as_in_a_turn_and_an_unknown_one_is_noted(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--task-title" in report(run("--json"))["notes"][0]
    assert "Note: " in run().stdout
    monkeypatch.setenv("CLASPER_DEFAULT_TASK", "Thread")
    told = report(run("--json"))
    assert "\nThread\n</data>" in told["messages"][-1]["content"]
    assert not any("--task-title" in note for note in told["notes"])


@pytest.mark.parametrize("text", ["[1]", "no JSON", '{"metadata": 1}'])
def test_a_request_that_is_no_json_object_is_refused(
    run: Callable[..., Result], tmp_path: Path, text: str
) -> None:
    file = tmp_path / "request.json"
    file.write_text(text)
    refused = run("--request", str(file))
    assert refused.exit_code == 2
    assert "--request" in refused.output


def test_with_smart_context_it_says_what_was_chosen_and_why(run: Callable[..., Result]) -> None:
    told = report(run("--message", "a refund, and tea for Ada", "--smart", "--json"))
    chosen = told["smartContext"]
    assert chosen["ranker"] == "bm25"
    by_name = {item["name"]: item for item in chosen["candidates"]}
    assert by_name["refunds"]["chosen"]
    assert by_name["MEMORY.md:2"]["score"] > 0
    names = [section["name"] for section in told["sections"]]
    assert "memory" not in names
    assert {"skill:refunds", "memory:MEMORY.md:2"} <= set(names)


def test_the_text_for_people_has_the_messages_the_sizes_and_the_choice(
    run: Callable[..., Result],
) -> None:
    out = run("--message", "refunds please", "--smart").stdout
    assert "──── system ────" in out
    assert "refunds please" in out
    assert "skill:refunds" in out
    assert "ranked by bm25" in out
    short = run("--no-text").stdout
    assert "──── system ────" not in short
    assert "Smart context is off" in short


def test_a_ranker_that_is_not_there_is_said_with_the_one_that_ran(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fastembed", None)
    monkeypatch.setenv("CLASPER_EMBEDDING_PROVIDER", "local")
    told = report(run("--message", "refunds", "--smart", "--json"))
    assert told["smartContext"]["ranker"] == "bm25"
    assert "clasper-worker[local]" in told["smartContext"]["problem"]


def test_another_folder_or_a_named_workspace_can_be_looked_at(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "SOUL.md").write_text("the other soul")
    assert "the other soul" in report(run("--path", str(other), "--json"))["messages"][0]["content"]
    monkeypatch.setenv("CLASPER_WORKSPACES", f"other={other}")
    told = report(run("--workspace", "other", "--json"))
    assert "the other soul" in told["messages"][0]["content"]
    with pytest.raises(InvalidRequestError):
        raise_from(run("--workspace", "nope"))


def raise_from(result: Result) -> None:
    assert result.exception is not None
    raise result.exception


def test_a_role_with_path_characters_and_a_missing_folder_are_clear_errors(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequestError, match="agent_role"):
        raise_from(run("--role", "../x"))
    with pytest.raises(WorkspaceError, match="clasper init"):
        raise_from(run("--path", str(tmp_path / "nowhere")))


def test_strict_fails_on_a_workspace_with_problems_and_lists_them(
    run: Callable[..., Result], workspace: Path
) -> None:
    assert run("--no-text").exit_code == 0
    for how in (("--no-text",), ("--json",)):
        result = run("--strict", *how)
        assert result.exit_code == 1
        assert "1 problem:" in result.stderr
        assert "skills/broken/SKILL.md" in result.stderr
    (workspace / "skills/broken/SKILL.md").write_text("# Tasks\n\nHow to manage tasks.\n")
    result = run("--strict", "--no-text")
    assert (result.exit_code, result.stderr) == (0, "")
