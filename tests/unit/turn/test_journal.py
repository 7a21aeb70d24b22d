"""The journal: what is recorded comes back as it was, and the first record counts."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from clasper_worker.errors import TurnConflictError
from clasper_worker.llm.cost import Cost, Usage
from clasper_worker.llm.messages import ModelReply, TokenUsage, ToolCall
from clasper_worker.turn.journal import Opening, Outcome, TurnJournal
from clasper_worker.turn.journal_store import MemoryLedger
from clasper_worker.turn.models import ResolvedTask, TurnResult

COST = Cost(model="m", inputTokens=1, outputTokens=1, inputCost=0.5, outputCost=None, totalCost=1)
REPLY = Outcome(kind="reply", task_id="t", text="Hé", usage=Usage(total_tokens=3), cost=COST)
TIMED_OUT = Outcome(kind="timed_out", task_id="t", text="late")
ASKED = ModelReply(
    "Let me see \U0001f642",
    (ToolCall("c1", "list_tasks", '{"x": "\ud800"}'), ToolCall("c2", "nothing", "{not json")),
    TokenUsage(10, 5, 2),
    "openai",
    "the-fallback-model",
    "tool_calls",
)
SAID = ModelReply("Hé", (), TokenUsage(1, 1), "openai", "m", "stop")
OPENING = Opening(ResolvedTask("t", "Title"), datetime(2026, 3, 29, 12, 0, 1, 5, tzinfo=UTC), "m9")
RESULT = TurnResult(
    turn_id="1", task_id="t", trace_id="0", response="Hé", usage=REPLY.usage, cost=COST,
    tool_calls=2, context_warning="cut",
)  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


async def opened(
    ledger: MemoryLedger, digest: str = "d", clock: Clock | None = None
) -> TurnJournal:
    return await TurnJournal.open(ledger, "key", digest, clock=clock or Clock())


async def test_what_was_recorded_comes_back_as_it_was() -> None:
    ledger = MemoryLedger()
    journal = await opened(ledger)
    assert (journal.reply(1), journal.opening, journal.outcome, journal.result) == (None,) * 4
    journal.begin(OPENING)
    assert await journal.record_reply(1, ASKED) == ASKED
    assert await journal.record_tool_result(1, 0, '{"é": "\ud800"}') == '{"é": "\ud800"}'
    assert await journal.conclude(2, SAID, REPLY) == REPLY
    assert await journal.settle(RESULT) == RESULT
    later = await opened(ledger)
    for known in (journal, later):
        assert known.opening == OPENING
        assert (known.reply(1), known.reply(2), known.reply(3)) == (ASKED, SAID, None)
        assert (known.tool_result(1, 0), known.tool_result(1, 1)) == ('{"é": "\ud800"}', None)
        assert (known.outcome, known.result) == (REPLY, RESULT)


async def test_another_request_under_the_same_turn_is_a_conflict() -> None:
    ledger = MemoryLedger()
    await opened(ledger, "one")
    with pytest.raises(TurnConflictError):
        await opened(ledger, "two")


async def test_two_runs_agree_on_the_replies_and_results_of_the_quicker() -> None:
    ledger = MemoryLedger()
    first, second = await opened(ledger), await opened(ledger)
    first.begin(OPENING)
    second.begin(replace(OPENING, history_end="other"))
    other = replace(ASKED, text="Another way")
    assert await first.record_reply(1, ASKED) == ASKED
    assert await second.record_reply(1, other) == ASKED
    assert second.opening == OPENING
    assert await second.record_tool_result(1, 0, "second") == "second"
    assert await first.record_tool_result(1, 0, "first") == "second"


async def test_an_outcome_stands_only_with_the_reply_that_led_to_it() -> None:
    ledger = MemoryLedger()
    first, second = await opened(ledger), await opened(ledger)
    await first.record_reply(1, ASKED)
    assert await second.conclude(1, SAID, REPLY) is None
    assert second.reply(1) == ASKED
    assert (await opened(ledger)).outcome is None
    assert await first.conclude(2, SAID, REPLY) == REPLY


async def test_the_first_outcome_is_what_everybody_gets() -> None:
    ledger = MemoryLedger()
    first, second = await opened(ledger), await opened(ledger)
    assert await first.decide(TIMED_OUT) == TIMED_OUT
    assert await second.conclude(1, SAID, REPLY) == TIMED_OUT
    assert await second.decide(REPLY) == TIMED_OUT


async def test_a_turn_that_has_said_that_it_timed_out_is_known_as_such() -> None:
    ledger = MemoryLedger()
    journal = await opened(ledger)
    assert not journal.has_timed_out
    assert await journal.settle(None) is None
    later = await opened(ledger)
    assert later.has_timed_out
    assert later.result is None


async def test_the_time_of_all_runs_counts_up_to_what_they_recorded() -> None:
    ledger, clock = MemoryLedger(), Clock()
    journal = await opened(ledger, clock=clock)
    assert journal.spent_before == 0
    clock.seconds += 30
    await journal.record_reply(1, ASKED)
    clock.seconds += 1000  # it died, and lay there
    journal = await opened(ledger, clock=clock)
    assert journal.spent_before == 30
    clock.seconds += 20
    await journal.record_tool_result(1, 0, "x")
    assert (await opened(ledger, clock=clock)).spent_before == 50


def test_an_outcomes_repr_does_not_show_its_text() -> None:
    assert "late" not in repr(TIMED_OUT)
