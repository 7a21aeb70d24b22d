"""The ids of events: where a follower has come to.

``MILLISECONDS-NUMBER.INDEX`` names an event of an entry of the turn's Redis stream; ``0-0.0`` is
before all of them. ``end-STEP.INDEX`` names one of those that end the stream, which come from the
job's stored result: 0 `retry`, 1 `chunk`, 2 `done` or `error`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from clasper_worker.errors import InvalidRequestError

_END = 2**63
RETRY, CHUNK, LAST = 0, 1, 2
"""The places of the events that end a stream."""
_FORM = re.compile(
    r"(?:([0-9]{1,18})-([0-9]{1,19})\.([0-9]{1,9})|end-([0-9]{1,19})\.([0-2]))", re.ASCII
)
_LONGEST = 64


class EventId(NamedTuple):
    """An event's id; ids of one stream are in the order of its events."""

    milliseconds: int
    number: int
    place: int  # of the event in its entry

    def __str__(self) -> str:
        first = "end" if self.is_end else self.milliseconds
        return f"{first}-{self.number}.{self.place}"

    @property
    def is_end(self) -> bool:
        """Whether it names one of the events that end a stream."""
        return self.milliseconds == _END

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after it."""
        return self.is_end and self.place == LAST

    @property
    def entry(self) -> str:
        """The entry in Redis that the event is of."""
        return f"{self.milliseconds}-{self.number}"


NOTHING = EventId(0, 0, 0)
QUEUED = EventId(0, 0, 1)


def end_id(step: int, place: int) -> EventId:
    """The id of one of the events that end a stream."""
    return EventId(_END, step, place)


def read_id(text: str | None) -> EventId:
    """The id that a follower gives; before all events for None.

    Raises:
        InvalidRequestError: it is none that any stream has.
    """
    if not text:
        return NOTHING
    found = _FORM.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        raise InvalidRequestError(
            "Last-Event-ID: is no id of an event: send the last one that came as it is, or none",
            {"fields": [{"field": "Last-Event-ID", "problem": "is no id of an event"}]},
        )
    if found[1] is None:
        return end_id(int(found[4]), int(found[5]))
    return EventId(int(found[1]), int(found[2]), int(found[3]))


def entry_order(name: str) -> tuple[int, int]:
    """The two numbers of an entry's name, by which entries of one stream are in order."""
    milliseconds, _, number = name.partition("-")
    return int(milliseconds), int(number)
