"""The checks: what a row's record says of the promises. Pure, and each names its evidence.

Every check returns the offenders as texts, so that a count above nought can be looked into.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from tests.chaos.records import Disturbance, ModelCall, RowRecord, TurnEnd
from tests.chaos.script import is_reply_to, number_of, session_of, thread_of

JOURNAL_SECONDS = 0.25
"""How long a worker has, from an answer's last byte, to write it down. A worker that was struck
sooner may have died with the answer: asking again is right then."""

_FAILED = frozenset({"FAILURE", "REVOKED"})
_FINAL = _FAILED | {"SUCCESS"}


def replies(record: RowRecord) -> dict[str, list[str]]:
    """The messages (of standups, documents) stored for each turn, oldest first."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    kinds = {turn.token: turn.reply for turn in record.sent}
    for post in sorted(record.posts, key=lambda post: post.at):
        if post.kind == kinds.get(post.token, "message") and post.outcome == "stored":
            found[post.token].append(post.content)
    return dict(found)


def lost(record: RowRecord) -> tuple[str, ...]:
    """Turns without a posted reply and without a failure that any of their callers was told."""
    answered, ends = replies(record), _ends(record)
    return tuple(
        turn.token
        for turn in record.sent
        if turn.token not in answered and not any(end.state in _FAILED for end in ends[turn.token])
    )


def unreported(record: RowRecord) -> tuple[str, ...]:
    """Turns with a posted reply that those who asked for it do not know of.

    That are Celery tasks without a result, and notifications that are not acknowledged.
    """
    answered, delivered = replies(record), _delivered(record)
    states = {(end.token, end.celery_id): end.state for end in record.ends}
    unknown = tuple(
        f"{turn.token}: not acknowledged"
        for turn in record.sent
        if turn.notified and turn.token in answered and turn.token not in delivered
    )
    return unknown + tuple(
        f"{turn.token}: {name} is {state}"
        for turn in record.sent
        for name in turn.celery_ids
        if turn.token in answered
        and (state := states.get((turn.token, name), "PENDING")) not in _FINAL
    )


def acknowledged_early(record: RowRecord) -> tuple[str, ...]:
    """Attempts to acknowledge a notification before its reply was stored."""
    replied = {
        post.token: post.at
        for post in sorted(record.posts, key=lambda post: -post.at)
        if post.kind == "message" and post.outcome == "stored"
    }
    return tuple(
        f"{ack.token}: acknowledged by {ack.worker} ({ack.outcome}) before its reply"
        for ack in record.acks
        if ack.at < replied.get(ack.token, math.inf)
    )


def failed(record: RowRecord) -> tuple[str, ...]:
    """Celery tasks that ended in a failure, with its class."""
    return tuple(
        f"{end.token}: {end.state} {end.error}" for end in record.ends if end.state in _FAILED
    )


def completed(record: RowRecord) -> tuple[str, ...]:
    """Turns of which every caller has the result, with the reply that is posted.

    Of a turn without callers: the reply is posted once, and a notification is acknowledged.
    """
    answered, ends, delivered = replies(record), _ends(record), _delivered(record)
    return tuple(
        turn.token
        for turn in record.sent
        if (
            _all_have(ends[turn.token], answered.get(turn.token, []))
            if turn.celery_ids
            else len(answered.get(turn.token, ())) == 1
            and (turn.token in delivered or not turn.notified)
        )
    )


def _all_have(ends: Sequence[TurnEnd], posted: list[str]) -> bool:
    """Whether all results are the one reply that was posted, under one turn id."""
    told = all(end.state == "SUCCESS" and [end.response] == posted for end in ends)
    return told and len({end.turn_id for end in ends}) == 1


def doubled(record: RowRecord) -> tuple[str, ...]:
    """Messages, documents and tasks that were stored more than once for one purpose."""
    stored = Counter(
        (post.kind, post.user_id if post.kind == "task" else "", post.token)
        for post in record.posts
        if post.outcome == "stored"
    )
    return tuple(
        f"{token}: {kind} stored {count} times"
        for (kind, _, token), count in stored.items()
        for _ in range(count - 1)
    )


def wrong(record: RowRecord) -> tuple[str, ...]:
    """Replies that are not the turn's own, and results that are not what was posted."""
    answered = replies(record)
    posted = tuple(
        f"{token or '(no token)'}: a message that is no reply to it"
        for token, contents in answered.items()
        for content in contents
        if not is_reply_to(token, content)
    )
    told = tuple(
        f"{end.token}: a result that was not posted"
        for end in record.ends
        if end.state == "SUCCESS" and end.response not in answered.get(end.token, [])
    )
    return posted + told


def misheard(record: RowRecord) -> tuple[str, ...]:
    """Listeners that have another text than the reply that was posted, or heard anything twice."""
    answered = replies(record)
    return tuple(
        f"{each.token}: a listener {fault}"
        for each in record.heard
        for fault in (
            *each.faults,
            *(["never heard the end"] if each.response is None else []),
            *(["has another text"] if [each.text] != answered.get(each.token, []) else []),
            *(["was told another response"] if each.response != each.text else []),
        )[:1]
    )


def misplaced(record: RowRecord) -> tuple[str, ...]:
    """Messages and documents that were stored in another thread than their turn's."""
    return tuple(
        f"{post.token}: {post.kind} in the thread {post.thread!r}"
        for post in record.posts
        if post.kind in {"message", "document"}
        and post.outcome == "stored"
        and post.token
        and post.thread != thread_of(post.token)
    )


def tools_missing(record: RowRecord) -> tuple[str, ...]:
    """Turns whose reply is posted although the document that it speaks of is not."""
    made = {p.token for p in record.posts if p.kind == "document" and p.outcome == "stored"}
    answered = replies(record)
    return tuple(
        f"{turn.token}: no document"
        for turn in record.sent
        if turn.tool and turn.token in answered and turn.token not in made
    )


def repeated(record: RowRecord) -> tuple[str, ...]:
    """Model calls made again although their answer must have been journaled.

    An answer counts as journaled if it was written whole and, for `JOURNAL_SECONDS` from then,
    neither the worker that got it nor Redis was struck by a fault.
    """
    return tuple(
        f"{again.token}: step {again.step} asked again by {again.worker}"
        f" {again.at - first.ended:.1f} s after {first.worker} had the answer"
        for first, again in _asked_again(record)
        if not _struck(record.disturbances, first)
    )


def redone(record: RowRecord) -> tuple[str, ...]:
    """Model calls made again because their answer may have died with its worker."""
    return tuple(
        f"{again.token}: step {again.step}"
        for first, again in _asked_again(record)
        if _struck(record.disturbances, first)
    )


def conflicts(record: RowRecord) -> tuple[str, ...]:
    """Posts that the backend refused with a 409: other bytes under a key used before."""
    return tuple(
        f"{post.token}: {post.kind} by {post.worker}"
        for post in record.posts
        if post.outcome == "conflict"
    )


def unfenced(record: RowRecord) -> tuple[str, ...]:
    """Posts that a worker tried after it had stood still, for turns that others had taken over.

    Whatever the backend made of them: a worker that has lost its lease may not post.
    """
    acts: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    for call in record.calls:
        acts[call.token].append((call.at, call.worker))
    for post in record.posts:
        acts[post.token].append((post.at, post.worker))
    return tuple(
        f"{post.token}: {post.kind} by {post.worker} ({post.outcome})"
        for fault in record.disturbances
        if fault.workers and not math.isinf(fault.until)
        for post in record.posts
        if post.worker in fault.workers
        and post.at > fault.until
        and _taken_over(fault, sorted(acts[post.token]), record.disturbances, post.at)
    )


def _taken_over(
    fault: Disturbance,
    acts: list[tuple[float, str]],
    disturbances: Iterable[Disturbance],
    moment: float,
) -> bool:
    """Whether a struck worker was at the turn, and another came to it while that stood still.

    Not where the other was struck in its turn before the moment: then the turn was free again.
    """
    before = [worker for at, worker in acts if at <= fault.at]
    others = {worker for at, worker in acts if fault.at < at <= fault.until} - set(fault.workers)
    lost_again = any(
        later.at < moment and others <= set(later.workers)
        for later in disturbances
        if later.at > fault.at
    )
    return bool(before) and before[-1] in fault.workers and bool(others) and not lost_again


def out_of_order(record: RowRecord) -> tuple[str, ...]:
    """Replies that were posted after a reply to a later turn of their session."""
    found = []
    latest: dict[str, int] = {}
    for post in sorted(record.posts, key=lambda post: post.at):
        if post.kind != "message" or post.outcome != "stored" or not post.token:
            continue
        session, number = session_of(post.token), number_of(post.token)
        if number < latest.get(session, -1):
            found.append(f"{post.token}: posted after {session}.{latest[session]:02d}")
        latest[session] = max(number, latest.get(session, -1))
    return tuple(found)


def overlapping(record: RowRecord) -> tuple[str, ...]:
    """Model calls of one session at one time, be they of two turns or of one that runs twice.

    A call of a worker that was struck while it was open does not count: its other end was frozen
    or dead, and another worker had to take over.
    """
    by_session: defaultdict[str, list[ModelCall]] = defaultdict(list)
    for call in record.calls:
        if call.token and not _struck_while_open(record.disturbances, call):
            by_session[session_of(call.token)].append(call)
    found = []
    for calls in by_session.values():
        calls.sort(key=lambda call: call.at)
        earlier = calls[0]  # the one that is open longest
        for later in calls[1:]:
            if later.at < earlier.ended and not _retry(earlier, later):
                shared = min(earlier.ended, later.ended) - later.at
                found.append(
                    f"{later.token} at {later.worker} while {earlier.token}"
                    f" at {earlier.worker} for {shared:.2f} s"
                )
            earlier = max(earlier, later, key=lambda call: call.ended)
    return tuple(found)


def _retry(earlier: ModelCall, later: ModelCall) -> bool:
    """Whether a worker asks again because its own call brought nothing."""
    return earlier.outcome != "answered" and (earlier.token, earlier.worker) == (
        later.token,
        later.worker,
    )


def _ends(record: RowRecord) -> defaultdict[str, list[TurnEnd]]:
    ends: defaultdict[str, list[TurnEnd]] = defaultdict(list)
    for end in record.ends:
        ends[end.token].append(end)
    return ends


def _delivered(record: RowRecord) -> frozenset[str]:
    return frozenset(ack.token for ack in record.acks if ack.outcome == "stored")


def _asked_again(record: RowRecord) -> Iterator[tuple[ModelCall, ModelCall]]:
    """Each call of a step that had an answer before, with the first such answer."""
    steps: defaultdict[tuple[str, int], list[ModelCall]] = defaultdict(list)
    for call in sorted(record.calls, key=lambda call: call.at):
        if call.token:
            steps[call.token, call.step].append(call)
    for calls in steps.values():
        for number, again in enumerate(calls):
            before = [c for c in calls[:number] if c.outcome == "answered" and c.ended <= again.at]
            # What was surely journaled weighs most: every later call of the step is a repeat.
            sure = [c for c in before if not _struck(record.disturbances, c)]
            if before:
                yield (sure or before)[0], again


def _struck(disturbances: Iterable[Disturbance], call: ModelCall) -> bool:
    """Whether the answer may have been lost before it was journaled, or with the journal."""
    return any(
        (each.erases and call.ended <= each.until)
        or (
            (each.state or call.worker in each.workers)
            and each.at <= call.ended + JOURNAL_SECONDS
            and each.until >= call.ended
        )
        for each in disturbances
    )


def _struck_while_open(disturbances: Iterable[Disturbance], call: ModelCall) -> bool:
    return any(
        call.worker in each.workers and each.at <= call.ended and each.until >= call.at
        for each in disturbances
    )
