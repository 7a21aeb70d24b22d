"""What a run reports of itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from clasper_worker.errors import EmptyReplyError, LeaseLostError, ModelUnavailableError
from clasper_worker.llm.messages import ModelReply, TokenUsage, ToolCall
from clasper_worker.observability.events import TurnEnd, TurnEvents, TurnReference, report_waiting
from clasper_worker.turn.models import TurnIdentity
from clasper_worker.turn.request import parse_send_request
from clasper_worker.turn.run import TurnRun
from tests.unit.turn.conftest import TurnHarness

EVENTS = (
    "started",
    "prompt_built",
    "model_asked",
    "model_answered",
    "tool_called",
    "tool_answered",
    "waiting",
    "posted",
    "ended",
)


class Heard(TurnEvents):
    """Notes each event by name, with what it was told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.turns: set[TurnReference] = set()

    def __getattribute__(self, name: str) -> Any:
        if name not in EVENTS:
            return object.__getattribute__(self, name)

        def note(turn: TurnReference, *args: Any, **facts: Any) -> None:
            self.turns.add(turn)
            self.events.append((name, args, facts))

        return note

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.events]

    @property
    def end(self) -> TurnEnd:
        (end,) = [args[0] for name, args, _ in self.events if name == "ended"]
        assert isinstance(end, TurnEnd)
        return end


@pytest.fixture
def heard(harness: TurnHarness) -> Heard:
    listener = Heard()
    harness.deps = replace(harness.deps, events=listener)
    return listener


def text(said: str) -> ModelReply:
    return ModelReply(said, (), TokenUsage(10, 5), "openai", "gpt", "stop")


def calls(*names: str) -> ModelReply:
    made = tuple(ToolCall(f"call{n}", name, "{}") for n, name in enumerate(names))
    return ModelReply("", made, TokenUsage(10, 5), "openai", "gpt", "tool_calls")


async def test_a_plain_turn_reports_each_step_in_order(harness: TurnHarness, heard: Heard) -> None:
    await harness.run(text("Hello"))
    assert heard.names == [
        "started",
        "prompt_built",
        "model_asked",
        "model_answered",
        "posted",
        "ended",
    ]
    assert heard.end.outcome == "ok"
    assert heard.end.seconds > 0


async def test_its_events_say_whose_turn_it_is(harness: TurnHarness, heard: Heard) -> None:
    await harness.run(text("Hello"), turn_id="turn-7", agent_role="writer")
    (turn,) = heard.turns
    assert (turn.turn_id, turn.user_id, turn.role) == ("turn-7", "u1", "writer")
    assert turn.session_key == "user:u1:writer"
    assert turn.kind == "send"


async def test_tool_calls_are_reported_with_whether_they_succeeded(
    harness: TurnHarness, heard: Heard
) -> None:
    await harness.run(calls("list_tasks", "no_such_tool"), text("Done"))
    answered = [facts for name, _, facts in heard.events if name == "tool_answered"]
    assert [(fact["tool"], fact["succeeded"], fact["index"]) for fact in answered] == [
        ("list_tasks", True, 0),
        ("unknown_tool", False, 1),  # as it is named to no one else: a model may make up any name
    ]
    assert all(fact["chars"] > 0 for fact in answered)


async def test_a_kickoff_plan_is_a_post_of_its_own(harness: TurnHarness, heard: Heard) -> None:
    await harness.run(text("1. Begin"), metadata={"kickoff_plan": True})
    assert [facts["what"] for name, _, facts in heard.events if name == "posted"] == [
        "reply",
        "plan",
    ]


@pytest.mark.parametrize(
    ("raised", "outcome", "code"),
    [
        (ModelUnavailableError("down", {"model": "gpt"}), "failed", "model_unavailable"),
        (LeaseLostError("taken over"), "lost", LeaseLostError.code),
        (asyncio.CancelledError(), "cancelled", None),
    ],
)
async def test_every_end_is_reported_once_as_what_it_is(
    harness: TurnHarness,
    heard: Heard,
    raised: BaseException,
    outcome: str,
    code: str | None,
) -> None:
    class Failing:
        async def complete(self, *_: Any, **__: Any) -> ModelReply:
            raise raised

    request = parse_send_request({"user_id": "u1", "message": "Hello", "task_title": "Thread"})
    deps = replace(harness.deps, model=lambda _: Failing())
    with pytest.raises(type(raised)):
        await TurnRun(request, TurnIdentity("t", "t", "0" * 32), deps).run()
    assert (heard.end.outcome, heard.end.code) == (outcome, code)
    assert "posted" not in heard.names


async def test_an_empty_reply_is_a_failure_with_its_code(
    harness: TurnHarness, heard: Heard
) -> None:
    with pytest.raises(EmptyReplyError):
        await harness.run(text(" "))
    assert (heard.end.outcome, heard.end.code) == ("failed", EmptyReplyError.code)


async def test_a_turn_that_had_ended_reports_no_model_call_and_no_post_again(
    harness: TurnHarness, heard: Heard
) -> None:
    await harness.run(text("Hello"))
    heard.events.clear()
    await harness.run()
    assert heard.names == ["started", "ended"]
    assert heard.events[0][2]["resumed"] is True


async def test_a_wait_deep_below_the_turn_is_reported_as_its_own(
    harness: TurnHarness, heard: Heard
) -> None:
    class Waiting:
        async def complete(self, *_: Any, **__: Any) -> ModelReply:
            report_waiting("rate_limit", 2.0)
            return text("Hello")

    request = parse_send_request({"user_id": "u1", "message": "Hello", "task_title": "Thread"})
    deps = replace(harness.deps, model=lambda _: Waiting())
    await TurnRun(request, TurnIdentity("t9", "t9", "0" * 32), deps).run()
    assert heard.names.index("waiting") == heard.names.index("model_asked") + 1
    assert ("waiting", (), {"reason": "rate_limit", "seconds": 2.0}) in heard.events
    assert {turn.turn_id for turn in heard.turns} == {"t9"}
    heard.events.clear()
    report_waiting("outage", None)  # the turn is over
    assert heard.events == []


async def test_the_end_tells_what_all_runs_of_the_turn_used_by_model(
    harness: TurnHarness, heard: Heard
) -> None:
    other = replace(text("Done"), model="gpt-4o-mini")
    await harness.run(calls("list_tasks"), other)
    first, second = heard.end.spent
    assert (first.model, first.input_tokens, first.output_tokens) == ("gpt", 10, 5)
    assert (first.cost_usd, first.unpriced_calls) == (None, 1)
    assert (second.model, second.unpriced_calls) == ("gpt-4o-mini", 0)
    assert second.cost_usd == pytest.approx(4.5e-6)
    told = heard.end.spent
    heard.events.clear()
    await harness.run()  # of the journal alone
    assert heard.end.spent == told


async def test_a_turn_that_fails_tells_what_it_used_until_then(
    harness: TurnHarness, heard: Heard
) -> None:
    with pytest.raises(EmptyReplyError):
        await harness.run(calls("list_tasks"), text(" "))
    (spent,) = heard.end.spent
    assert (spent.input_tokens, spent.output_tokens) == (20, 10)  # the empty reply is paid for too
