"""Each check passes a record in which all went well, and finds what is falsified in it."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.chaos import checks
from tests.chaos.records import Ack, Disturbance, Heard, RowRecord
from tests.chaos.sample import TOKENS, call, end, good_record, post, sent
from tests.chaos.script import reply_for

GOOD = good_record()
FIRST, SECOND, OTHER = TOKENS
KILL = Disturbance("kill -9", 2.1, math.inf, workers=("w1",))


def without_reply(record: RowRecord, token: str) -> RowRecord:
    return replace(record, posts=tuple(p for p in record.posts if p.token != token))


def with_end(record: RowRecord, token: str, **changed: object) -> RowRecord:
    kept = tuple(each for each in record.ends if each.token != token)
    return replace(record, ends=(*kept, end(token, **changed)))


@pytest.mark.parametrize(
    "check",
    [
        checks.lost,
        checks.unreported,
        checks.failed,
        checks.doubled,
        checks.wrong,
        checks.misplaced,
        checks.misheard,
        checks.acknowledged_early,
        checks.tools_missing,
        checks.repeated,
        checks.redone,
        checks.conflicts,
        checks.unfenced,
        checks.out_of_order,
        checks.overlapping,
    ],
)
def test_a_record_in_which_all_went_well_has_nothing_to_find(
    check: Callable[[RowRecord], tuple[str, ...]],
) -> None:
    assert check(GOOD) == ()


def notified(record: RowRecord, *acks: Ack) -> RowRecord:
    """The record with its first turn as a notification's, which has no callers."""
    turn = sent(FIRST, celery_ids=(), notified=True)
    kept = tuple(each for each in record.ends if each.token != FIRST)
    return replace(record, sent=(turn, *record.sent[1:]), ends=kept, acks=acks)


def test_a_notification_that_is_replied_to_and_acknowledged_is_completed() -> None:
    acks = (Ack(FIRST, "w1", 2.2, "refused"), Ack(FIRST, "w1", 2.4, "stored"))
    record = notified(GOOD, *acks, Ack(FIRST, "w2", 2.6, "repeated"))
    assert checks.completed(record) == TOKENS
    assert checks.unreported(record) == checks.acknowledged_early(record) == ()


def test_a_notification_whose_acknowledgement_was_never_stored_is_unreported() -> None:
    record = notified(GOOD, Ack(FIRST, "w1", 2.4, "refused"))
    assert checks.unreported(record) == (f"{FIRST}: not acknowledged",)
    assert FIRST not in checks.completed(record)


def test_a_notification_without_a_reply_is_lost_and_acknowledging_it_was_early() -> None:
    record = without_reply(notified(GOOD, Ack(FIRST, "w1", 2.4, "stored")), FIRST)
    assert checks.lost(record) == (FIRST,)
    assert len(checks.acknowledged_early(record)) == 1
    assert FIRST not in checks.completed(record)


@pytest.mark.parametrize("outcome", ["stored", "refused"])
def test_an_attempt_to_acknowledge_before_the_reply_is_stored_is_early(outcome: str) -> None:
    tried = Ack(FIRST, "w1", 2.0, "stored" if outcome == "stored" else "refused")
    record = notified(GOOD, tried, Ack(FIRST, "w1", 2.4, "stored"))
    assert checks.acknowledged_early(record) == (
        f"{FIRST}: acknowledged by w1 ({outcome}) before its reply",
    )


def test_a_notification_that_is_replied_to_twice_is_doubled_and_not_completed() -> None:
    record = notified(GOOD, Ack(FIRST, "w1", 2.4, "stored"))
    record = replace(record, posts=(*record.posts, post(FIRST, 9.0, key="another")))
    assert len(checks.doubled(record)) == 1
    assert FIRST not in checks.completed(record)


@pytest.mark.parametrize(
    "heard",
    [
        Heard(FIRST, reply_for(FIRST, 1)[:-1], reply_for(FIRST, 1), 1),
        Heard(FIRST, reply_for(FIRST, 2), reply_for(FIRST, 2), 1),
        Heard(FIRST, reply_for(FIRST, 1), None, 1),
        Heard(FIRST, reply_for(FIRST, 1), reply_for(FIRST, 2), 1),
        Heard(FIRST, None, reply_for(FIRST, 1), 1),
        Heard(FIRST, reply_for(FIRST, 1), reply_for(FIRST, 1), 1, ("heard an event twice",)),
    ],
)
def test_a_listener_with_anything_but_the_posted_reply_is_found(heard: Heard) -> None:
    right = Heard(OTHER, reply_for(OTHER, 1), reply_for(OTHER, 1), 2)
    assert checks.misheard(replace(GOOD, heard=(right,))) == ()
    assert len(checks.misheard(replace(GOOD, heard=(right, heard)))) == 1


def test_a_reply_in_the_thread_of_another_session_is_misplaced() -> None:
    record = replace(
        without_reply(GOOD, OTHER), posts=(*GOOD.posts[:2], post(OTHER, 3.0, thread="Thread s000"))
    )
    assert checks.misplaced(record) == (f"{OTHER}: message in the thread 'Thread s000'",)


def test_a_standup_is_replied_to_with_a_document() -> None:
    turn = sent("d3.00", celery_ids=(), reply="document")
    record = replace(GOOD, sent=(*GOOD.sent, turn))
    assert checks.lost(record) == ("d3.00",)
    written = post("d3.00", 9.0, kind="document")
    record = replace(record, posts=(*record.posts, written))
    assert checks.lost(record) == checks.misplaced(record) == checks.wrong(record) == ()
    assert "d3.00" in checks.completed(record)
    again = replace(record, posts=(*record.posts, replace(written, at=9.5, key="another")))
    assert checks.doubled(again) == ("d3.00: document stored 2 times",)


def test_a_heartbeat_that_is_run_twice_in_its_slot_is_found() -> None:
    twice = (post("h3.41", 9.0), post("h3.41", 9.5, key="another"))
    calls = (call("h3.41", 7.0), call("h3.41", 8.2, worker="w2"))
    record = replace(GOOD, posts=(*GOOD.posts, *twice), calls=(*GOOD.calls, *calls))
    assert checks.doubled(record) == ("h3.41: message stored 2 times",)
    assert len(checks.repeated(record)) == 1


def test_turns_whose_callers_all_have_the_posted_reply_are_completed() -> None:
    assert checks.completed(GOOD) == TOKENS


def test_a_turn_without_reply_or_result_is_lost() -> None:
    record = with_end(without_reply(GOOD, SECOND), SECOND, state="PENDING", response=None)
    assert checks.lost(record) == (SECOND,)
    assert SECOND not in checks.completed(record)


def test_a_turn_that_is_still_started_is_lost() -> None:
    record = with_end(without_reply(GOOD, SECOND), SECOND, state="STARTED", response=None)
    assert checks.lost(record) == (SECOND,)


def test_a_turn_whose_caller_was_told_of_a_failure_is_failed_and_not_lost() -> None:
    record = with_end(without_reply(GOOD, SECOND), SECOND, state="FAILURE", error="ModelError")
    assert checks.lost(record) == ()
    assert checks.failed(record) == (f"{SECOND}: FAILURE ModelError",)


def test_a_success_without_a_posted_reply_is_lost_and_wrong() -> None:
    record = without_reply(GOOD, SECOND)
    assert checks.lost(record) == (SECOND,)
    assert checks.wrong(record) == (f"{SECOND}: a result that was not posted",)


def test_a_posted_reply_without_a_result_is_unreported() -> None:
    record = with_end(GOOD, SECOND, state="PENDING", response=None)
    assert checks.lost(record) == ()
    (found,) = checks.unreported(record)
    assert found.startswith(SECOND)
    assert SECOND not in checks.completed(record)


def test_one_of_many_callers_without_a_result_keeps_the_turn_from_being_completed() -> None:
    more = end(FIRST, celery_id="other", state="PENDING", response=None)
    assert FIRST not in checks.completed(replace(GOOD, ends=(*GOOD.ends, more)))


def test_callers_with_different_turn_ids_keep_the_turn_from_being_completed() -> None:
    more = end(FIRST, celery_id="other", turn_id="another")
    assert FIRST not in checks.completed(replace(GOOD, ends=(*GOOD.ends, more)))


def test_a_message_stored_twice_is_doubled_once() -> None:
    record = replace(GOOD, posts=(*GOOD.posts, post(FIRST, 9.0, key="another")))
    assert checks.doubled(record) == (f"{FIRST}: message stored 2 times",)


def test_a_document_stored_three_times_is_doubled_twice() -> None:
    documents = tuple(post(FIRST, at, kind="document", key=f"k{at}") for at in (1.0, 2.0, 3.0))
    assert len(checks.doubled(replace(GOOD, posts=(*GOOD.posts, *documents)))) == 2


def test_a_replayed_post_is_not_doubled() -> None:
    record = replace(GOOD, posts=(*GOOD.posts, post(FIRST, 9.0, outcome="replayed")))
    assert checks.doubled(record) == ()


def test_tasks_of_one_title_are_doubled_within_a_user_alone() -> None:
    def task(user: str) -> RowRecord:
        made = (post("T", 1.0, kind="task"), post("T", 2.0, kind="task", user_id=user))
        return replace(GOOD, posts=(*GOOD.posts, *made))

    assert checks.doubled(task("u1")) == ()
    assert len(checks.doubled(task("u0"))) == 1


def test_the_reply_of_another_turn_is_wrong() -> None:
    swapped = post(SECOND, 4.1, content=reply_for(FIRST, 1))
    record = replace(without_reply(GOOD, SECOND), posts=(*GOOD.posts[:1], swapped))
    assert f"{SECOND}: a message that is no reply to it" in checks.wrong(record)


def test_a_result_that_differs_from_the_posted_reply_is_wrong() -> None:
    record = with_end(GOOD, FIRST, response=reply_for(FIRST, 2))
    assert checks.wrong(record) == (f"{FIRST}: a result that was not posted",)
    assert FIRST not in checks.completed(record)


def test_a_reply_without_its_document_is_found() -> None:
    record = replace(GOOD, sent=(sent(FIRST, tool=True), *GOOD.sent[1:]))
    assert checks.tools_missing(record) == (f"{FIRST}: no document",)
    made = replace(record, posts=(*record.posts, post(FIRST, 1.0, kind="document")))
    assert checks.tools_missing(made) == ()


def test_a_step_asked_again_after_its_answer_is_repeated() -> None:
    record = replace(GOOD, calls=(*GOOD.calls, call(FIRST, 8.0, worker="w2")))
    (found,) = checks.repeated(record)
    assert found.startswith(f"{FIRST}: step 1 asked again by w2")
    assert checks.redone(record) == ()


def test_a_step_asked_again_because_its_answer_died_with_its_worker_is_redone() -> None:
    again = call(FIRST, 8.0, worker="w2")
    record = replace(GOOD, calls=(*GOOD.calls, again), disturbances=(KILL,))
    assert checks.repeated(record) == ()
    assert checks.redone(record) == (f"{FIRST}: step 1",)


def test_a_kill_long_after_the_answer_excuses_nothing() -> None:
    late = replace(KILL, at=2.0 + checks.JOURNAL_SECONDS + 0.1)
    again = call(FIRST, 8.0, worker="w2")
    record = replace(GOOD, calls=(*GOOD.calls, again), disturbances=(late,))
    assert len(checks.repeated(record)) == 1


def test_a_kill_of_another_worker_excuses_nothing() -> None:
    again = call(FIRST, 8.0, worker="w2")
    other = replace(KILL, workers=("w9",))
    record = replace(GOOD, calls=(*GOOD.calls, again), disturbances=(other,))
    assert len(checks.repeated(record)) == 1


def test_what_was_asked_again_and_again_after_a_kill_is_repeated_from_the_third_time_on() -> None:
    calls = (*GOOD.calls, call(FIRST, 8.0, worker="w2"), call(FIRST, 12.0, worker="w2"))
    record = replace(GOOD, calls=calls, disturbances=(KILL,))
    assert len(checks.redone(record)) == 1
    assert len(checks.repeated(record)) == 1


def test_a_journal_that_was_erased_excuses_a_repeated_call() -> None:
    flush = Disturbance("state flushed", 6.0, 6.1, state=True, erases=True)
    record = replace(GOOD, calls=(*GOOD.calls, call(FIRST, 8.0)), disturbances=(flush,))
    assert checks.repeated(record) == ()


@pytest.mark.parametrize("outcome", ["refused", "cut", "abandoned"])
def test_a_retry_after_a_call_without_an_answer_is_not_repeated(outcome: str) -> None:
    first = call(FIRST, 0.1, ended=0.5, outcome=outcome)
    assert checks.repeated(replace(GOOD, calls=(first, *GOOD.calls))) == ()


def test_a_conflict_is_found() -> None:
    refused = post(FIRST, 9.0, outcome="conflict")
    assert len(checks.conflicts(replace(GOOD, posts=(*GOOD.posts, refused)))) == 1


@pytest.mark.parametrize("outcome", ["stored", "replayed", "conflict"])
def test_a_worker_that_posts_after_another_has_taken_its_turn_over_is_unfenced(
    outcome: str,
) -> None:
    frozen = Disturbance("SIGSTOP", 1.2, 30.0, workers=("w1",))
    taken_over = call(FIRST, 20.0, worker="w2")
    late = post(FIRST, 30.5, outcome=outcome)
    record = replace(without_reply(GOOD, FIRST), disturbances=(frozen,))
    record = replace(record, calls=(*GOOD.calls, taken_over), posts=(*record.posts, late))
    assert checks.unfenced(record) == (f"{FIRST}: message by w1 ({outcome})",)


def test_a_worker_that_stood_still_and_kept_its_turn_may_post() -> None:
    frozen = Disturbance("SIGSTOP", 1.2, 2.0, workers=("w1",))
    assert checks.unfenced(replace(GOOD, disturbances=(frozen,))) == ()


def test_a_worker_that_stood_still_may_take_over_a_turn_that_it_was_not_at() -> None:
    frozen = Disturbance("SIGSTOP", 1.2, 30.0, workers=("w1",))
    calls = (call(FIRST, 20.0, worker="w2"), call(FIRST, 31.0))
    record = replace(without_reply(GOOD, FIRST), disturbances=(frozen,), calls=calls)
    record = replace(record, posts=(*record.posts, post(FIRST, 32.1)))
    assert checks.unfenced(record) == ()


def test_a_worker_may_take_a_turn_back_from_one_that_was_struck_in_its_turn() -> None:
    frozen = Disturbance("SIGSTOP", 1.2, 30.0, workers=("w1",))
    struck_too = Disturbance("SIGSTOP", 21.0, 90.0, workers=("w2",))
    taken_over = call(FIRST, 20.0, worker="w2")
    late = post(FIRST, 50.5, outcome="stored")
    record = replace(without_reply(GOOD, FIRST), disturbances=(frozen, struck_too))
    record = replace(record, calls=(*GOOD.calls, taken_over), posts=(*record.posts, late))
    assert checks.unfenced(record) == ()


def test_a_reply_posted_before_that_of_an_earlier_turn_is_out_of_order() -> None:
    late = post(FIRST, 9.0)
    record = replace(without_reply(GOOD, FIRST), posts=(*GOOD.posts[1:], late))
    assert checks.out_of_order(record) == (f"{FIRST}: posted after {SECOND}",)


def test_turns_of_one_session_at_the_model_at_once_overlap() -> None:
    record = replace(GOOD, calls=(call(FIRST, 1.0), call(SECOND, 1.5, worker="w2")))
    (found,) = checks.overlapping(record)
    assert found == f"{SECOND} at w2 while {FIRST} at w1 for 0.50 s"


def test_a_long_call_overlaps_with_every_one_that_begins_in_it() -> None:
    calls = (call(FIRST, 1.0, ended=9.0), call(SECOND, 2.0), call(SECOND, 4.0))
    assert len(checks.overlapping(replace(GOOD, calls=calls))) == 2


def test_one_turn_that_runs_twice_at_once_overlaps() -> None:
    record = replace(GOOD, calls=(call(FIRST, 1.0), call(FIRST, 1.5, worker="w2")))
    assert len(checks.overlapping(record)) == 1


def test_a_frozen_worker_s_open_call_does_not_overlap() -> None:
    frozen = Disturbance("SIGSTOP", 1.2, 30.0, workers=("w1",))
    calls = (call(FIRST, 1.0, ended=20.0), call(FIRST, 10.0, worker="w2"))
    assert checks.overlapping(replace(GOOD, calls=calls, disturbances=(frozen,))) == ()
