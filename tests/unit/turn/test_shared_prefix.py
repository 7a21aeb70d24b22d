"""What consecutive turns of one session have in common, which a provider's prompt cache keeps."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from clasper_worker.prompt.retrieval.smart_context import SmartContext
from clasper_worker.prompt.workspace.workspace import Workspace
from clasper_worker.testing import ScriptedModel, calls, says


def opening(model: ScriptedModel) -> Any:
    """All that the first model call of a turn was sent: the tools, then the messages."""
    asked = model.requests[0]
    return asked.tools, asked.messages


def said(*texts: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)]


async def test_two_turns_share_everything_up_to_the_newest_exchange(harness: Any) -> None:
    _, first = await harness.run(
        says("Two."), turn_id="a", message="Second", messages=said("First", "One.")
    )
    later = replace(harness.deps, now=lambda: harness.deps.now() + timedelta(days=1))
    _, second = await replace(harness, deps=later).run(
        says("Three."),
        turn_id="b",
        message="Third",
        messages=said("First", "One.", "Second", "Two."),
        metadata={"timezone": "Asia/Tokyo"},
    )
    tools_before, before = opening(first)
    tools_after, after = opening(second)
    shared = len(before) - 1  # all but the newest message
    assert tools_after == tools_before
    assert after[:shared] == before[:shared]
    assert [message.content for message in after[1:-1]] == ["First", "One.", "Second", "Two."]
    assert after[-1].content.startswith("<turn_context>\nNow: Monday, 2026-03-30")
    assert after[-1].content.endswith("</turn_context>\n\nThird")


async def test_what_smart_context_chooses_is_no_part_of_what_two_turns_share(
    harness: Any, workspace_path: Path
) -> None:
    for name in ("refunds", "travel"):
        path = workspace_path / "skills" / name / "SKILL.md"
        path.parent.mkdir(parents=True)
        path.write_text(f"---\ndescription: About {name}.\n---\nHow to do {name}.")
    (workspace_path / "MEMORY.md").write_text("# Ada\nlikes trains when she does travel")
    smart = SmartContext()
    with Workspace.open(workspace_path, prepare=smart.prepare) as workspace:
        deps = replace(harness.deps, smart=smart, workspace=lambda *_: workspace.current())
        smart_harness = replace(harness, deps=deps)
        _, first = await smart_harness.run(
            says("Yes."), turn_id="a", message="How are refunds done?", messages=said("Hi", "Hi.")
        )
        _, second = await smart_harness.run(
            says("By train."),
            turn_id="b",
            message="How does Ada travel?",
            messages=said("Hi", "Hi.", "How are refunds done?", "Yes."),
        )
    (tools_before, before), (tools_after, after) = opening(first), opening(second)
    assert tools_after == tools_before
    assert after[: len(before) - 1] == before[:-1]
    assert "How to do refunds." in before[-1].content
    assert "How to do travel." in after[-1].content
    assert "likes trains" in after[-1].content


async def test_each_model_call_of_a_turn_extends_the_one_before(harness: Any) -> None:
    _, model = await harness.run(
        calls(("list_tasks", {})), calls(("get_notifications", {})), says("Done.")
    )
    first, second, third = (request.messages for request in model.requests)
    assert second[: len(first)] == first
    assert third[: len(second)] == second
