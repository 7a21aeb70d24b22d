"""The signal that nothing needs attention, where a message asks for one.

As in “If nothing needs attention, reply with exactly: X”.
"""

from __future__ import annotations

import re

from clasper_worker.offline_model.conversation import Conversation
from clasper_worker.offline_model.heads import Kind
from clasper_worker.offline_model.results import failure, is_empty
from clasper_worker.offline_model.toolbox import kind_of

_SIGNAL = re.compile(
    r"\b(?:[Ii]f|[Ww]hen) (?:there is |there's )?(?:nothing|no\b)[^.\n]{0,80}?"
    r"\b(?:reply|respond|answer)\s+(?:only\s+|just\s+)?(?:with\s+)?(?:exactly|only|just)?\s*:?\s*"
    r"[\"'`]?(?P<signal>[A-Z][A-Z0-9_]{2,60})\b"
)


def quiet_signal(talk: Conversation) -> str | None:
    """The signal that the words ask for when nothing needs attention, or None.

    Nothing does when no call failed and no notification came back. The signal is for a program,
    so it is given alone, without a label.
    """
    match = _SIGNAL.search(talk.asked)
    if match is None or any(failure(call) is not None for call in talk.executed):
        return None
    news = (call for call in talk.executed if kind_of(call.name) is Kind.GET_NOTIFICATIONS)
    return match.group("signal") if all(is_empty(call) for call in news) else None
