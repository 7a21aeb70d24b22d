"""What consecutive turns of one session have in common, which a provider's prompt cache keeps."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

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


async def test_each_model_call_of_a_turn_extends_the_one_before(harness: Any) -> None:
    _, model = await harness.run(
        calls(("list_tasks", {})), calls(("get_notifications", {})), says("Done.")
    )
    first, second, third = (request.messages for request in model.requests)
    assert second[: len(first)] == first
    assert third[: len(second)] == second
