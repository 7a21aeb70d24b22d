"""What the followers of a turn read is what it answers, whatever happened on the way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import stamina

from clasper_worker.errors import EmptyReplyError, ModelRejectedError
from clasper_worker.llm.fallback import ModelChain
from clasper_worker.llm.messages import ModelReply, TextPart
from clasper_worker.llm.spoken import without_controls, without_thoughts
from clasper_worker.observability.events import (
    UNHEARD,
    ModelAnswer,
    ReportedTurn,
    TurnEnd,
    TurnEvents,
    TurnReference,
)
from clasper_worker.testing import calls, says
from clasper_worker.turn.journal_store import Entries, MemoryLedger
from clasper_worker.turn.models import TurnIdentity, TurnResult
from clasper_worker.turn.request import parse_send_request
from clasper_worker.turn.run import TurnRun
from clasper_worker.turn.streamed_text import StreamedText
from tests.unit.llm.model_server import (
    DONE,
    STOP,
    Answer,
    delta,
    model_of,
    refuses,
    says_slowly,
    streams,
)
from tests.unit.turn.conftest import TurnHarness


class Follower(TurnEvents):
    """Reads a turn's text, and notes what it was told of it, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.texts: defaultdict[int, str] = defaultdict(str)
        self.turns: set[TurnReference] = set()

    def chunk(self, turn: TurnReference, *, step: int, text: str) -> None:
        assert text
        self.turns.add(turn)
        self.told.append(f"{step}: {text}")
        self.texts[step] += text

    def retry(self, turn: TurnReference, *, step: int) -> None:
        self.told.append(f"{step}: retry")
        self.texts[step] = ""

    def model_answered(self, turn: TurnReference, answer: ModelAnswer) -> None:
        self.told.append(f"{answer.step}: answered")

    def ended(self, turn: TurnReference, end: TurnEnd) -> None:
        self.told.append("ended")

    async def flush(self, turn: TurnReference) -> None:
        self.told.append("kept")


@pytest.fixture
def follower(harness: TurnHarness) -> Follower:
    listener = Follower()
    harness.deps = replace(harness.deps, events=listener)
    return listener


@asynccontextmanager
async def turn_with(
    harness: TurnHarness, *answers: Answer, fallback: Sequence[Answer] = (), **options: Any
) -> AsyncIterator[Callable[..., Any]]:
    async with (
        model_of(*answers, **options) as (model, _),
        model_of(*fallback or answers) as (other, _),
    ):
        models = [model, other] if fallback else [model]
        deps = replace(harness.deps, model=lambda _: ModelChain(models))

        async def run(**fields: Any) -> TurnResult:
            request = {
                "user_id": "u1",
                "message": "Hi",
                "task_title": "T",
                "stream": True,
                **fields,
            }
            turn = TurnIdentity("turn-1", "job", "0" * 32)
            return await TurnRun(parse_send_request(request), turn, deps).run()

        with stamina.set_testing(testing=True, attempts=3):
            yield run


CALLS = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "list_tasks"}}]}


async def test_each_step_is_reported_and_the_last_ones_text_is_the_response(
    harness: TurnHarness, follower: Follower
) -> None:
    first = streams(delta("I look."), delta(CALLS), delta({}, "tool_calls"), DONE)
    async with turn_with(harness, first, says_slowly(" Do", "ne. \n")) as run:
        result = await run()
    assert follower.texts == {1: "I look.", 2: result.response} == {1: "I look.", 2: "Done."}
    assert follower.told[1:3] == ["kept", "1: answered"]
    assert follower.told[-2:] == ["kept", "ended"]
    assert {turn.streamed for turn in follower.turns} == {True}


async def test_a_turn_that_did_not_ask_for_it_is_not_streamed(
    harness: TurnHarness, follower: Follower
) -> None:
    await harness.run(says("Hello"))
    assert follower.told == ["1: answered", "ended"]


async def test_every_turn_is_streamed_where_the_operator_says_so(
    harness: TurnHarness, follower: Follower
) -> None:
    result, _ = await harness.run(says("Hello you"), settings={"streams_always": True})
    assert follower.texts == {1: result.response}


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["<thi", "nk>hm</think>\n", "Yes", " \n"], ["1: Yes"]),
        (["Hm. ", "</think>", " Yes"], ["1: Hm.", "1: retry", "1: Yes"]),
        (["a\x00", "b\x1f"], ["1: a", "1: b"]),
        (["a ", "b [", "c"], ["1: a", "1:  b", "1:  [c"]),
    ],
)
def test_what_is_not_for_people_is_not_reported(texts: list[str], told: list[str]) -> None:
    follower = Follower()
    streamed = StreamedText(ReportedTurn(replace(UNHEARD.turn, streamed=True), follower))
    streamed.ask(1)
    assert streamed.listen is not None
    for text in texts:
        streamed.listen(TextPart(text))
    streamed.conclude(1, without_thoughts(without_controls("".join(texts))))
    assert follower.told == told


async def test_what_the_whole_turn_reports_is_its_response_though_it_has_thoughts(
    harness: TurnHarness, follower: Follower
) -> None:
    async with turn_with(harness, says_slowly(" Hm. ", "</think>\n", "Yes", "\x00 \n")) as run:
        result = await run()
    assert follower.texts == {1: result.response} == {1: "Yes"}


async def test_a_refusal_is_reported_as_the_text_that_it_is(
    harness: TurnHarness, follower: Follower
) -> None:
    async with turn_with(harness, streams(delta({"refusal": "No."}), STOP, DONE)) as run:
        result = await run()
    assert follower.texts == {1: result.response} == {1: "No."}


@pytest.mark.parametrize(
    "broken",
    [
        streams(delta("Hel"), ends="cut"),
        streams(delta("Hel")),
        streams(delta("Hel"), b'data: {"error": {"code": 503}}\n\n'),
    ],
)
@pytest.mark.parametrize("by", ["another try", "the fallback"])
async def test_a_reply_that_starts_anew_voids_what_was_reported_of_it(
    harness: TurnHarness, follower: Follower, broken: Answer, by: str
) -> None:
    whole = says_slowly("Hello")
    answers, fallback = ([broken, whole], []) if by == "another try" else ([broken], [whole])
    async with turn_with(harness, *answers, fallback=fallback, retries=not fallback) as run:
        result = await run()
    assert follower.told[:3] == ["1: Hel", "1: retry", "1: Hello"]
    assert follower.texts == {1: result.response}


async def test_a_conversation_told_again_with_less_history_voids_what_was_reported(
    harness: TurnHarness, follower: Follower
) -> None:
    half = b'data: {"error": {"code": "context_length_exceeded", "message": "at most 900"}}\n\n'
    history = [{"role": role, "content": "x" * 900} for role in ("user", "assistant")] * 3
    async with turn_with(harness, streams(delta("Hel"), half), says_slowly("Hello")) as run:
        result = await run(messages=history)
    assert follower.told[:3] == ["1: Hel", "1: retry", "1: Hello"]
    assert follower.texts == {1: result.response}


class Overtaken(MemoryLedger):
    """Another run records its entries first, right before this one's."""

    def __init__(self, **others: str) -> None:
        super().__init__()
        self._others = others

    async def record(self, key: str, entries: Sequence[tuple[str, str]], spent: float) -> Entries:
        for name, text in self._others.items():
            await super().record(key, [(name.replace("_", ":"), text)], spent)
        return await super().record(key, entries, spent)


async def recorded(harness: TurnHarness, *replies: ModelReply) -> Entries:
    """What a run of these replies records."""
    ledger = MemoryLedger()
    deps, harness.deps = harness.deps, replace(harness.deps, ledger=ledger, events=TurnEvents())
    await harness.run(*replies)
    harness.deps = deps
    (entries,) = ledger._turns.values()
    return entries


@pytest.mark.parametrize("known", [("reply:1",), ("reply:1", "outcome")])
@pytest.mark.parametrize("theirs", ["Theirs", "Ours and more"])
async def test_where_anothers_reply_was_first_it_is_what_is_reported(
    harness: TurnHarness, follower: Follower, known: Sequence[str], theirs: str
) -> None:
    entries = await recorded(harness, says(theirs))
    others = {name.replace(":", "_"): entries[name] for name in known}
    harness.deps = replace(harness.deps, ledger=Overtaken(**others))
    result, _ = await harness.run(says("Ours"), stream=True)
    assert result.response == theirs
    assert follower.texts == {1: theirs}


async def test_where_anothers_calls_were_first_their_text_is_what_is_reported(
    harness: TurnHarness, follower: Follower
) -> None:
    entries = await recorded(harness, calls(("list_tasks", {}), text="Theirs"), says("Done"))
    harness.deps = replace(harness.deps, ledger=Overtaken(reply_1=entries["reply:1"]))
    result, _ = await harness.run(calls(("list_tasks", {}), text="Ours"), says("Done"), stream=True)
    assert follower.texts == {1: "Theirs", 2: result.response}


async def test_a_later_run_says_first_that_the_step_it_asks_begins_anew(
    harness: TurnHarness, follower: Follower
) -> None:
    dies = refuses(400, "no", code="other")
    calling = streams(delta(CALLS), delta({}, "tool_calls"), DONE)
    async with turn_with(harness, dies, calling, dies, says_slowly("Done.")) as run:
        for _ in range(2):
            with pytest.raises(ModelRejectedError):
                await run()
        result = await run()
    told = [entry for entry in follower.told if entry not in {"kept", "ended"}]
    assert told == ["1: retry", "1: answered", "2: retry", "2: Done.", "2: answered"]
    assert result.response == "Done."
    follower.told.clear()
    async with turn_with(harness, dies) as run:
        assert await run() == result
    assert follower.told == ["kept", "ended"]


async def test_text_that_leads_to_no_reply_fails_the_turn_all_the_same(
    harness: TurnHarness, follower: Follower
) -> None:
    async with turn_with(harness, says_slowly("Hm.", "</think>", "\n")) as run:
        with pytest.raises(EmptyReplyError):
            await run()
    assert follower.told[-3:] == ["1: answered", "kept", "ended"]
    assert not any(follower.texts.values())
