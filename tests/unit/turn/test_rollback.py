"""What a cancelled turn had stored, as the turn is told that it was cancelled for."""

import asyncio
from typing import Any

import pytest
from celery import states

from clasper_worker.testing import calls, says
from clasper_worker.turn.journal_store import MemoryLedger
from clasper_worker.turn.models import RolledBack
from clasper_worker.turn.rollback import rolled_back


class Ended:
    """Celery's result backend, of one job."""

    def __init__(self, state: str) -> None:
        self._state = state

    def get_state(self, _: str) -> str:
        return self._state


async def told(harness: Any, state: str = states.REVOKED, turn: str = "turn-1") -> Any:
    return await rolled_back(("job", turn), "u1", harness.deps.ledger, Ended(state))


NOTE = ("post_message", {"content": "A note"})
PLAN = ("create_document", {"title": "Plan", "content": "1. Go", "doc_type": "plan"})


async def test_messages_and_documents_of_tools_and_the_reply_are_named(harness: Any) -> None:
    result, _ = await harness.run(calls(NOTE, PLAN), says("Done"))
    found = await told(harness)
    posted = [one.id async for one in harness.backend().messages(result.task_id)]
    assert (found.turn_id, list(found.messages)) == ("turn-1", posted)
    assert (len(found.messages), len(found.documents)) == (2, 1)


async def test_ids_are_in_the_order_of_their_posts(harness: Any) -> None:
    notes = [("post_message", {"content": f"Note {n}"}) for n in range(5)]
    result, _ = await harness.run(calls(*notes), says("Done"))
    posted = [one.id async for one in harness.backend().messages(result.task_id)]
    assert list((await told(harness)).messages) == posted


async def test_what_was_posted_right_before_the_cancellation_is_named(harness: Any) -> None:
    """Though the call's result was not recorded any more."""

    class Cancelling(MemoryLedger):
        async def record(self, key: str, entries: Any, spent: float) -> Any:
            if any(name.startswith("tool:") for name, _ in entries):
                raise asyncio.CancelledError
            return await super().record(key, entries, spent)

    object.__setattr__(harness.deps, "ledger", Cancelling())
    with pytest.raises(asyncio.CancelledError):
        await harness.run(calls(NOTE), says("Done"))
    assert len((await told(harness)).messages) == 1


@pytest.mark.parametrize("state", [states.SUCCESS, states.FAILURE])
async def test_a_turn_that_had_ended_by_itself_was_not_cancelled(harness: Any, state: str) -> None:
    await harness.run(says("Done"))
    assert await told(harness, state) is None


async def test_nothing_stopped_and_nothing_stored(harness: Any) -> None:
    assert await rolled_back(None, "u1", harness.deps.ledger, Ended(states.REVOKED)) is None
    assert await told(harness, turn="never-began") == RolledBack(turn_id="never-began")


async def test_to_look_is_no_claim_to_the_turn(harness: Any) -> None:
    """The cancelled request, asked for again, runs."""
    await told(harness)
    result, _ = await harness.run(says("Now"))
    assert result.response == "Now"


async def test_only_the_same_users_turns_are_looked_at(harness: Any) -> None:
    await harness.run(says("Done"), user_id="u2")
    assert await told(harness) == RolledBack(turn_id="turn-1")
