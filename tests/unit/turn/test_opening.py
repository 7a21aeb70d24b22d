import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from clasper_worker.llm.messages import ChatMessage
from clasper_worker.prompt.models import PromptSettings
from clasper_worker.prompt.retrieval.selection import SmartLimits
from clasper_worker.prompt.retrieval.smart_context import SmartContext
from clasper_worker.prompt.workspace.reader import WorkspaceReader
from clasper_worker.prompt.workspace.skills import Host
from clasper_worker.prompt.workspace.snapshot import WorkspaceSnapshot
from clasper_worker.turn.opening import limits_for, ranked_by, turn_prompt
from clasper_worker.turn.request import parse_send_request

NOW = datetime(2026, 3, 5, 12, 0, tzinfo=UTC)
SKILL = "---\nname: {0}\ndescription: About {0}.\n{1}---\nHow to {0}.\n"


@pytest.fixture
def smart() -> SmartContext:
    return SmartContext()


@pytest.fixture
def workspace(tmp_path: Path, smart: SmartContext) -> WorkspaceSnapshot:
    files = {"AGENTS.md": "rules", "SOUL.md": "soul", "MEMORY.md": "# Tea\nAda drinks tea."}
    for name in ("tea", "travel", "refunds", "house"):
        files[f"skills/{name}/SKILL.md"] = SKILL.format(
            name, "always: true\n" if name == "house" else ""
        )
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    reader = WorkspaceReader(tmp_path, Host("linux", frozenset(), lambda _: None))
    snapshot = reader.read(reader.look())
    smart.prepare(snapshot)
    return snapshot


async def prompt_of(snapshot: WorkspaceSnapshot, smart: SmartContext | None, **request: Any) -> Any:
    fields = {"user_id": "u1", "message": "What kind of tea does Ada drink?", **request}
    return await turn_prompt(
        parse_send_request(fields),
        snapshot,
        smart=smart,
        settings=PromptSettings(),
        now=NOW,
        task_title=None,
        tool_names=(),
    )


def sections(found: Any, part: str) -> list[str]:
    return [item.name for item in found.prompt.sections if item.part == part]


async def test_what_was_chosen_stands_beside_the_message_and_the_rest_is_not_told(
    workspace: WorkspaceSnapshot, smart: SmartContext
) -> None:
    found = await prompt_of(workspace, smart)
    assert sections(found, "system") == [
        *("soul", "rules", "skills", "skill:house", "safety", "reply", "agent")
    ]
    assert sections(found, "turn_context") == ["time", "skill:tea", "memory:MEMORY.md:2"]
    assert found.newest.startswith(found.prompt.turn_context)
    assert found.newest.endswith("\n\nWhat kind of tea does Ada drink?")
    assert all(name in found.prompt.system for name in ("**tea**", "**travel**", "**refunds**"))


async def test_the_system_prompt_does_not_depend_on_what_was_chosen(
    workspace: WorkspaceSnapshot, smart: SmartContext
) -> None:
    one = await prompt_of(workspace, smart)
    other = await prompt_of(workspace, smart, message="A refund, and travel, please")
    assert one.prompt.system == other.prompt.system
    assert one.selection != other.selection


async def test_the_request_can_do_without_smart_context(
    workspace: WorkspaceSnapshot, smart: SmartContext
) -> None:
    found = await prompt_of(workspace, smart, metadata={"skipSmartContext": True})
    assert found.selection is None
    assert {"memory", "skill:tea", "skill:travel"} <= set(sections(found, "system"))


async def test_a_forced_skill_is_told_beside_those_that_were_chosen_and_once_only(
    workspace: WorkspaceSnapshot, smart: SmartContext
) -> None:
    forced = {"forceIncludeSkills": ["refunds", "tea"], "smart_context_max_skills": 1}
    found = await prompt_of(workspace, smart, metadata=forced)
    assert sections(found, "turn_context") == [
        *("time", "skill:refunds", "skill:tea", "memory:MEMORY.md:2")
    ]


async def test_where_smart_context_fails_the_full_context_is_told_with_a_warning(
    workspace: WorkspaceSnapshot, smart: SmartContext
) -> None:
    workspace.derived.clear()
    found = await prompt_of(workspace, smart)
    assert {"memory", "skill:tea", "skill:travel"} <= set(sections(found, "system"))
    assert [warning.subject for warning in found.prompt.warnings] == ["smart_context"]


async def test_an_override_replaces_chosen_memory_too(
    workspace: WorkspaceSnapshot, smart: SmartContext
) -> None:
    found = await prompt_of(workspace, smart, metadata={"system_prompt": "Other."})
    assert sections(found, "turn_context") == ["time", "skill:tea"]


def test_the_requests_own_limits_come_before_the_operators() -> None:
    asked = {"smart_context_max_skills": 0, "smart_context_token_budget": 9}
    request = parse_send_request({"user_id": "u", "message": "m", "metadata": asked})
    assert limits_for(request, SmartLimits(5, 3, 100)) == SmartLimits(0, 3, 9)


HISTORY = (
    ChatMessage("user", "old"),
    ChatMessage("user", "Book a flight"),
    ChatMessage("assistant", "To Madrid?"),
)


@pytest.mark.parametrize(
    ("message", "query"),
    [
        ("Yes, do it", "Yes, do it\nBook a flight\nTo Madrid?"),
        ("No, a refund for the broken mug", "No, a refund for the broken mug"),
    ],
)
def test_a_very_short_message_is_ranked_with_what_was_said_before(message: str, query: str) -> None:
    assert ranked_by(message, HISTORY) == query


WARM_TURN = """
import asyncio, os, sys
from datetime import UTC, datetime
from pathlib import Path
from clasper_worker.llm.messages import ChatMessage
from clasper_worker.llm.tokens import TokenCounter
from clasper_worker.prompt.retrieval.smart_context import SmartContext
from clasper_worker.prompt.workspace.workspaces import Workspaces
from clasper_worker.turn.fit import ModelWindow
from clasper_worker.turn.opening import PromptSettings, turn_prompt
from clasper_worker.turn.request import parse_send_request

smart = SmartContext()
main, acme = Path(sys.argv[1]), Path(sys.argv[2])
workspaces = Workspaces.open(main, {"acme": acme}, prepare=smart.prepare)
workspaces.close()  # the watcher's own looks are not a turn's
window = ModelWindow(4000, 100, TokenCounter())
history = [ChatMessage("user", "x" * 3000), ChatMessage("assistant", "y" * 20000)]
ZONES = ["Asia/Tokyo", "Asia/Seoul", "Asia/Dubai", "Europe/Berlin", "Europe/Paris", "Europe/Rome",
         "America/Lima", "America/Bogota", "America/Denver", "Africa/Cairo", "Africa/Lagos"]

async def turns():
    for name in ("default", "acme"):
        for zone in ZONES:
            metadata = {"workspace": name, "timezone": zone,
                        "skipSmartContext": zone == "Asia/Dubai"}
            request = parse_send_request(
                {"user_id": "u", "message": "What about tea, and travel?", "metadata": metadata})
            found = await turn_prompt(
                request, workspaces.snapshot(name, "u"), smart=smart, settings=PromptSettings(),
                now=datetime.now(UTC), task_title="T", tool_names=("a",), history=history)
            opening, fitted = found.fit(history, 100, window)
            assert fitted.dropped == 2 and len(opening) == 2

async def main():
    await turns()
    touched = []
    sys.addaudithook(lambda event, args: touched.append(event)
                     if event in ("open", "os.listdir", "os.scandir") else None)
    def refuse(*args, **kwargs):
        touched.append("stat")
        raise AssertionError("a stat in a warm turn")
    os.stat = os.lstat = os.path.realpath = refuse
    await turns()
    counted = len(touched)
    open(os.devnull).close()   # the hook does count
    return counted, len(touched) - counted

print(*asyncio.run(main()))
"""


def test_a_warm_turn_touches_no_file(workspace: WorkspaceSnapshot, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "MEMORY.md").write_text("Tea is green.")
    done = subprocess.run(
        [sys.executable, "-c", WARM_TURN, str(workspace.root), str(other)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "0 1"


async def test_what_the_workspace_lacks_is_logged_once_and_what_a_request_asks_in_vain_each_time(
    tmp_path: Path,
) -> None:
    (tmp_path / "empty").mkdir()
    reader = WorkspaceReader(tmp_path / "empty", Host("linux", frozenset(), lambda _: None))
    snapshot = reader.read(reader.look())
    with capture_logs() as logs:
        for _ in range(3):
            await prompt_of(snapshot, None, metadata={"forceIncludeSkills": ["nope"]})
    subjects = [entry["subject"] for entry in logs if entry["event"] == "prompt.warning"]
    assert sorted(subjects) == ["forced_skills"] * 3 + ["rules", "soul"]
