"""The model loop: when it goes on, when it ends, and when it is ended."""

import json
from collections.abc import Mapping
from typing import Any, cast

import pytest

from clasper_worker.errors import EmptyReplyError, ToolLoopError
from clasper_worker.llm.messages import ChatMessage, ModelReply
from clasper_worker.prompt.sanitize import unfence_data
from clasper_worker.testing import ScriptedModel, calls, says
from clasper_worker.tools.registry import Tool, ToolArguments, Toolbox, ToolContext
from clasper_worker.turn.journal import TurnJournal
from clasper_worker.turn.journal_store import MemoryLedger
from clasper_worker.turn.loop import REPEATS_ALLOWED, REPEATS_FATAL, Answer, converse

OPENING = [ChatMessage("system", "S"), ChatMessage("user", "U")]


class EchoArguments(ToolArguments):
    text: str = ""


class Harness:
    """A tool that echoes, counting its calls and the steps they are made under."""

    def __init__(self) -> None:
        self.echoed: list[str] = []
        self.steps: list[str] = []
        self.toolbox = Toolbox([Tool("echo", "Echoes.", EchoArguments, self._echo)])

    async def _echo(self, context: ToolContext, arguments: EchoArguments) -> Mapping[str, Any]:
        self.echoed.append(arguments.text)
        return {"echo": arguments.text}

    def context_for(self, step: str) -> ToolContext:
        self.steps.append(step)
        return cast("ToolContext", None)

    async def run(self, *replies: ModelReply, max_steps: int = 10) -> tuple[Answer, ScriptedModel]:
        model = ScriptedModel(replies)
        answer = await converse(
            model,
            OPENING,
            self.toolbox,
            self.context_for,
            TurnJournal(MemoryLedger(), "t", {}),
            max_steps=max_steps,
        )
        return answer, model


async def test_an_answer_in_text_ends_the_loop() -> None:
    answer, model = await Harness().run(says(" Hello "))
    assert (answer.text, answer.tool_calls, len(answer.replies)) == ("Hello", 0, 1)
    assert [tool.name for tool in model.requests[0].tools] == ["echo"]


async def test_tool_results_go_back_to_the_model_in_order_under_their_calls() -> None:
    harness = Harness()
    answer, model = await harness.run(
        calls(("echo", {"text": "a"}), ("echo", {"text": "b"})), says("done")
    )
    assert (answer.tool_calls, harness.echoed) == (2, ["a", "b"])
    assert harness.steps == ["tool:1:0", "tool:1:1"]
    asked = model.requests[1].messages
    assert [message.role for message in asked[2:]] == ["assistant", "tool", "tool"]
    assert [message.tool_call_id for message in asked[3:]] == ["call_0", "call_1"]
    assert json.loads(unfence_data(asked[4].content or "")) == {"echo": "b"}


async def test_a_bad_call_goes_back_as_an_error_that_the_model_can_correct() -> None:
    harness = Harness()
    answer, model = await harness.run(
        calls(("echo", "{not json")), calls(("echo", {"text": "a"})), says("done")
    )
    assert answer.text == "done"
    assert harness.echoed == ["a"]
    assert "error" in json.loads(unfence_data(model.requests[1].messages[-1].content or ""))


@pytest.mark.parametrize("text", ["", "  \n"])
async def test_an_empty_reply_is_an_error(text: str) -> None:
    with pytest.raises(EmptyReplyError):
        await Harness().run(says(text))


async def test_a_call_repeated_too_often_is_not_carried_out_but_told() -> None:
    harness = Harness()
    repeated = [calls(("echo", {"text": "a"}))] * (REPEATS_ALLOWED + 1)
    answer, model = await harness.run(*repeated, says("done"))
    assert answer.text == "done"
    assert harness.echoed == ["a"] * REPEATS_ALLOWED
    assert "error" in json.loads(model.requests[-1].messages[-1].content or "")


async def test_arguments_written_otherwise_are_the_same_call() -> None:
    harness = Harness()
    with pytest.raises(ToolLoopError):
        await harness.run(*[calls(("echo", '{"text":  "a"}')), calls(("echo", '{"text":"a"}'))] * 5)
    assert harness.echoed == ["a"] * REPEATS_ALLOWED


async def test_a_model_that_insists_on_a_repeated_call_loses_the_turn() -> None:
    with pytest.raises(ToolLoopError) as caught:
        await Harness().run(*[calls(("echo", {}))] * REPEATS_FATAL)
    assert caught.value.details == {"tool": "echo", "repeats": REPEATS_FATAL}


async def test_in_its_last_step_the_model_may_not_call_tools() -> None:
    replies = [calls(("echo", {"text": str(step)})) for step in range(2)]
    answer, model = await Harness().run(*replies, says("done"), max_steps=3)
    assert answer.text == "done"
    assert [request.tool_choice for request in model.requests] == ["auto", "auto", "none"]


async def test_a_model_that_never_answers_is_ended_at_the_step_limit() -> None:
    harness = Harness()
    replies = [calls(("echo", {"text": str(step)})) for step in range(3)]
    with pytest.raises(ToolLoopError, match="CLASPER_MAX_STEPS"):
        await harness.run(*replies, max_steps=3)
    assert harness.echoed == ["0", "1"]
