"""A small row in which all went well, for the checks to be fed with falsified copies of."""

from __future__ import annotations

from typing import Any

from tests.chaos.records import ModelCall, Post, RowRecord, SentTurn, TurnEnd
from tests.chaos.script import reply_for, thread_of

TOKENS = ("s000.00", "s000.01", "s001.00")
_STARTS = (1.0, 3.0, 1.5)


def sent(token: str, **changed: Any) -> SentTurn:
    """A turn that was sent."""
    fields = {"user_id": "u0", "celery_ids": (f"id-{token}",), "tool": False, "at": 0.0}
    return SentTurn(token, **{**fields, **changed})


def call(token: str, at: float, **changed: Any) -> ModelCall:
    """A model call of one second."""
    fields = {"step": 1, "worker": "w1", "ended": at + 1, "outcome": "answered", "body_hash": "h"}
    return ModelCall(token=token, at=at, **{**fields, **changed})


def post(token: str, at: float, **changed: Any) -> Post:
    """A stored reply."""
    who = {"kind": "message", "user_id": "u0", "worker": "w1"}
    what = {"key": f"k-{token}", "body_hash": "h", "content": reply_for(token, 1)}
    what["thread"] = thread_of(token)
    return Post(token=token, at=at, **{**who, **what, "outcome": "stored", **changed})


def end(token: str, **changed: Any) -> TurnEnd:
    """The result of a turn that went well."""
    result = {"turn_id": f"turn-{token}", "response": reply_for(token, 1)}
    return TurnEnd(token, **{"celery_id": f"id-{token}", "state": "SUCCESS", **result, **changed})


def good_record() -> RowRecord:
    """Two turns of one session, one after the other, and one of another session beside them."""
    return RowRecord(
        row="row",
        seed=0,
        sent=tuple(sent(token) for token in TOKENS),
        calls=tuple(call(token, at) for token, at in zip(TOKENS, _STARTS, strict=True)),
        posts=tuple(post(token, at + 1.1) for token, at in zip(TOKENS, _STARTS, strict=True)),
        ends=tuple(end(token) for token in TOKENS),
    )
