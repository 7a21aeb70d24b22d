"""The inspector beside a real turn: it must show what the model is sent."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from clasper_worker.config.settings import load_settings
from clasper_worker.prompt.context import AgentContext
from clasper_worker.prompt.workspace.workspace import Workspace
from clasper_worker.testing import says
from clasper_worker.turn.prompt_report import prompt_report

HISTORY = [
    {"role": "system", "content": "a summary"},
    {"role": "user", "content": "Hello \u202e there"},
    {"role": "assistant", "content": "Hello."},
]


def without_time(messages: list[dict[str, Any]]) -> str:
    return re.sub(r"Now: \w+, \S+ \d\d:\d\d", "Now", json.dumps(messages))


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"agent_role": "writer", "task_title": "A ta\u202esk", "messages": HISTORY},
        {"messages": HISTORY, "metadata": {"kickoff_plan": True, "timezone": "Asia/Tokyo"}},
        {"messages": HISTORY, "metadata": {"forceIncludeSkills": ["nope"]}},
        {"messages": HISTORY, "metadata": {"system_prompt": "You are a pirate.\u202e"}},
    ],
)
async def test_the_inspector_shows_what_the_model_is_sent_to_the_byte(
    harness: Any, workspace_path: Path, tmp_path: Path, fields: dict[str, Any]
) -> None:
    (workspace_path / "souls").mkdir()
    (workspace_path / "souls/writer.md").write_text("You are the writer.")
    (workspace_path / "skills/a").mkdir(parents=True)
    (workspace_path / "skills/a/SKILL.md").write_text("---\ndescription: A.\n---\nDo it.")
    request = {"user_id": "u1", "message": "Is a refund fine?", "task_title": "Thread", **fields}
    settings = load_settings(
        clasper_workspace=workspace_path, clasper_state_dir=tmp_path, clasper_smart_context=False
    )
    shown = await prompt_report(settings, request)
    with Workspace.open(workspace_path) as workspace:
        deps = replace(harness.deps, workspace=lambda *_: workspace.current())
        _, model = await replace(harness, deps=deps).run(says("Yes."), **request)
    asked = model.requests[0]
    sent = [{"role": item.role, "content": item.content} for item in asked.messages]
    assert without_time(shown["messages"]) == without_time(sent)
    assert [tool["name"] for tool in shown["tools"]] == [tool.name for tool in asked.tools]


async def test_its_embeddings_are_asked_for_as_a_workers_are(
    workspace_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a client that takes neither the text nor the key along to where a redirect points."""
    made = []

    def no_context(_: Any, llm: openai.AsyncOpenAI) -> None:
        made.append(llm)
        raise LookupError

    monkeypatch.setattr(AgentContext, "open", no_context)
    settings = load_settings(clasper_workspace=workspace_path, clasper_state_dir=tmp_path)
    with pytest.raises(LookupError):
        await prompt_report(settings, {"user_id": "u1", "message": "Hello"})
    assert not made[0]._client.follow_redirects
    assert made[0].is_closed()
