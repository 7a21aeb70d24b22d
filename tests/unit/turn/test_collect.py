"""Turns that are run with another of their session: who is part of it, and what each is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from clasper_worker.errors import (
    ClasperError,
    ConfigurationError,
    InvalidRequestError,
    ModelUnavailableError,
    StateUnavailableError,
    TurnConflictError,
    TurnTimeoutError,
)
from clasper_worker.llm.cost import Usage, turn_cost
from clasper_worker.turn.call import TurnCall
from clasper_worker.turn.collect import CollectedTurns, JoinedRequest
from clasper_worker.turn.journal import TurnJournal
from clasper_worker.turn.journal_store import MemoryLedger, ledger_key, request_digest
from clasper_worker.turn.models import TurnResult, identify_turn
from clasper_worker.turn.request import SendRequest, parse_send_request


def asked(message: str, **fields: Any) -> dict[str, Any]:
    return {"user_id": "u", "agent_role": "r", "message": message, **fields}


def result(text: str) -> TurnResult:
    return TurnResult(
        turn_id="t",
        task_id="task",
        trace_id="0" * 32,
        response=text,
        usage=Usage(),
        cost=turn_cost(()),
        tool_calls=0,
    )


@dataclass
class Site:
    """Where turns run: a ledger, and what callers were told."""

    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    ends: dict[str, tuple[str, Any]] = field(default_factory=dict)
    reported: list[str] = field(default_factory=list)
    parted: list[str] = field(default_factory=list)
    group: CollectedTurns = field(init=False)

    def store_result(self, job_id: str, end: Any, state: str) -> None:
        self.ends[job_id] = (state, end)

    def get_state(self, job_id: str) -> str:
        return self.ends.get(job_id, ("PENDING", None))[0]

    async def part(self, job_ids: tuple[str, ...]) -> None:
        self.parted += job_ids

    async def succeeded(self, call: TurnCall, end: TurnResult) -> None:
        assert self.ends[call.job_id] == ("SUCCESS", end)  # is stored by now
        self.reported.append(call.job_id)

    async def failed(self, call: TurnCall, error: ClasperError) -> None:
        assert self.ends[call.job_id] == ("FAILURE", error)
        self.reported.append(call.job_id)

    async def join(self, first: dict[str, Any], **others: dict[str, Any]) -> SendRequest:
        """Run the job ``first``, with which these were collected, up to its request."""
        self.parted.clear()
        collected = [{"job_id": job, "request": request} for job, request in others.items()]
        self.group = CollectedTurns(collected, self, part=self.part, ends=self)
        return await self.group.join(TurnCall("first", first), self.ledger)

    async def succeed(self, end: TurnResult) -> None:
        await self.group.succeed(end)

    async def journal(self, arguments: dict[str, Any], job_id: str) -> TurnJournal:
        request = parse_send_request(arguments)
        turn = identify_turn("u", request.idempotency_key, job_id)
        return await TurnJournal.open(
            self.ledger, ledger_key(request, turn), request_digest(request)
        )


@pytest.fixture
def site() -> Site:
    return Site()


async def test_the_model_is_told_all_messages_in_order_of_arrival(site: Site) -> None:
    request = await site.join(asked("one"), b=asked("two"), c=asked("three"))
    assert request.instruction == "one\n\ntwo\n\nthree"
    assert site.parted == []
    await site.succeed(result("done"))
    assert {job: state for job, (state, _) in site.ends.items()} == {
        "b": "SUCCESS",
        "c": "SUCCESS",
    }
    assert site.reported == ["b", "c"]


async def test_a_turn_without_others_is_left_as_it_is(site: Site) -> None:
    request = await site.join(asked("one"))
    assert not isinstance(request, JoinedRequest)
    assert await site.ledger.claim("k", "d") == {"request": "d"}  # nothing else was recorded


async def test_a_failure_is_told_to_all(site: Site) -> None:
    await site.join(asked("one"), b=asked("two"))
    await site.group.fail(ModelUnavailableError("down"))
    state, error = site.ends["b"]
    assert (state, type(error)) == ("FAILURE", ModelUnavailableError)


async def test_one_whose_request_is_invalid_fails_alone(site: Site) -> None:
    request = await site.join(asked("one"), b=asked(""), c=asked("three"))
    assert request.instruction == "one\n\nthree"
    state, error = site.ends["b"]
    assert (state, type(error)) == ("FAILURE", InvalidRequestError)


async def test_one_whose_header_brought_it_into_anothers_session_fails_alone(site: Site) -> None:
    alien, role = asked("two", user_id="other"), asked("three", agent_role="s")
    request = await site.join(asked("one"), b=alien, c=role, d=asked("four"))
    assert request.instruction == "one\n\nfour"
    for job in ("b", "c"):
        state, error = site.ends[job]
        assert (state, type(error)) == ("FAILURE", InvalidRequestError)
        assert "clasper_route" in str(error)


async def test_a_turn_asked_for_many_times_is_told_to_the_model_once(site: Site) -> None:
    again = asked("one", idempotency_key="k")
    other = asked("two", idempotency_key="l")
    request = await site.join(again, b=again, c=other, d=other, e=again)
    assert request.instruction == "one\n\ntwo"
    await site.succeed(result("done"))
    assert {job: state for job, (state, _) in site.ends.items()} == dict.fromkeys("bcde", "SUCCESS")


async def test_a_key_with_another_request_is_a_conflict_of_that_job_alone(site: Site) -> None:
    first = asked("one", idempotency_key="k")
    request = await site.join(first, b=asked("other", idempotency_key="k"), c=asked("three"))
    assert request.instruction == "one\n\nthree"
    assert isinstance(site.ends["b"][1], TurnConflictError)
    assert list(site.ends) == ["b"]


async def test_messages_behind_a_turn_that_is_over_are_not_answered_by_its_old_reply(
    site: Site,
) -> None:
    again = asked("one", idempotency_key="k")
    await (await site.journal(again, "before")).settle(result("an old reply"))
    request = await site.join(again, b=asked("new"), c=again)
    assert request.instruction == "one"
    assert site.parted == ["b", "c"]
    await site.succeed(result("an old reply"))
    assert site.ends == {}


async def test_messages_behind_a_conflict_wait_for_a_turn_of_their_own(site: Site) -> None:
    await site.journal(asked("one", idempotency_key="k"), "before")
    await site.join(asked("other", idempotency_key="k"), b=asked("new"))
    assert site.parted == ["b"]
    await site.group.fail(TurnConflictError("used"))
    assert site.ends == {}


async def test_all_stand_apart_from_a_request_that_is_invalid(site: Site) -> None:
    group = CollectedTurns(
        [{"job_id": "b", "request": asked("two")}], site, part=site.part, ends=site
    )
    await group.stand_apart()
    await group.fail(InvalidRequestError("bad"))
    assert (site.parted, site.ends) == (["b"], {})


async def test_one_that_asks_for_a_turn_that_is_over_gets_what_that_gave(site: Site) -> None:
    again = asked("two", idempotency_key="k")
    await (await site.journal(again, "before")).settle(result("an old reply"))
    request = await site.join(asked("one"), b=again, c=asked("three"))
    assert request.instruction == "one\n\nthree"
    state, end = site.ends["b"]
    assert (state, end.response) == ("SUCCESS", "an old reply")


async def test_one_that_asks_for_a_turn_that_was_begun_goes_on_with_it_later(site: Site) -> None:
    again = asked("two", idempotency_key="k")
    await (await site.journal(again, "before")).record_tool_result(1, 0, "a result")
    request = await site.join(asked("one"), b=asked("zero"), c=again, d=asked("three"))
    assert request.instruction == "one\n\nzero"
    assert site.parted == ["c", "d"]  # in their order


async def test_one_that_was_collected_and_asks_again_gets_the_common_result(site: Site) -> None:
    other = asked("two", idempotency_key="k")
    await site.join(asked("one"), b=other)
    await site.succeed(result("both answered"))
    known = (await site.journal(other, "again")).result
    assert known is not None
    assert known.response == "both answered"


async def test_messages_of_another_task_are_not_answered_in_this_one(site: Site) -> None:
    request = await site.join(
        asked("one", task_id="t1"), b=asked("two", task_id="t1"), c=asked("three", task_id="t2")
    )
    assert request.instruction == "one\n\ntwo"
    assert site.parted == ["c"]


async def test_the_next_run_of_the_turn_has_the_same_others(site: Site) -> None:
    first = asked("one", idempotency_key="k")
    await site.join(first, b=asked("two"), c=asked("", task_id="t"))
    await (await site.journal(first, "first")).record_tool_result(1, 0, "a result")
    request = await site.join(first, b=asked("two"), c=asked("three"), d=asked("four"))
    assert request.instruction == "one\n\ntwo"
    assert site.parted == ["c", "d"]


async def test_who_cannot_be_told_is_told_by_the_next_run(site: Site) -> None:
    await site.join(asked("one"), b=asked("two"))

    def refuse(*_: Any) -> None:
        raise RedisConnectionError("gone")

    site.store_result = refuse  # type: ignore[assignment, method-assign]
    for tell in (site.group.succeed(result("done")), _fail(site)):
        with pytest.raises(StateUnavailableError):
            await tell
    assert site.reported == []


async def _fail(site: Site) -> None:
    error: ClasperError = ModelUnavailableError("down")
    await site.group.fail(error)


async def test_another_request_under_a_collected_key_is_a_conflict(site: Site) -> None:
    await site.join(asked("one"), b=asked("two", idempotency_key="k"))
    other = asked("another", idempotency_key="k")
    with pytest.raises(TurnConflictError):  # while it runs
        await site.journal(other, "c")
    await site.group.fail(ModelUnavailableError("down"))
    with pytest.raises(TurnConflictError):  # and after it failed
        await site.journal(other, "c")


async def test_one_without_a_key_that_is_sent_twice_gets_the_common_result(site: Site) -> None:
    await site.join(asked("one"), b=asked("two"))
    await site.succeed(result("both answered"))
    known = (await site.journal(asked("two"), "b")).result
    assert known is not None
    assert known.response == "both answered"


async def test_that_the_time_ran_out_is_each_ones_end_once_it_is_posted(site: Site) -> None:
    other = asked("two", idempotency_key="k")
    await site.join(asked("one"), b=other)
    await site.group.fail(TurnTimeoutError("not posted"))
    assert not (await site.journal(other, "again")).has_timed_out
    await site.group.fail(TurnTimeoutError("posted", {"posted": True}))
    assert (await site.journal(other, "again")).has_timed_out


async def test_one_that_was_cancelled_meanwhile_stays_so_and_is_reported_once(site: Site) -> None:
    await site.join(asked("one"), b=asked("two"), c=asked("three"))
    site.ends["b"] = ("REVOKED", None)
    await site.succeed(result("done"))
    assert site.ends["b"] == ("REVOKED", None)
    assert site.reported == ["c"]


async def test_a_failure_before_they_have_joined_is_not_theirs(site: Site) -> None:
    group = CollectedTurns(
        [{"job_id": "b", "request": asked("two")}], site, part=site.part, ends=site
    )
    await group.fail(ConfigurationError("no BACKEND_URL"))
    assert (site.parted, site.ends) == (["b"], {})
