"""Hours of an agent's own day: when it may be woken, and when its standup is due."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Self
from zoneinfo import ZoneInfo

_MINUTES_OF_DAY = 24 * 60
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)|24:00")


def check_timezone(name: str) -> str:
    """Return the name of a time zone.

    Raises:
        ValueError: it is not an IANA name.
    """
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("is not an IANA time zone such as Europe/Berlin") from None
    return name


def parse_time_of_day(text: str) -> time:
    """Read ``HH:MM``.

    Raises:
        ValueError: it is not a time of day.
    """
    minutes = _minutes(text)
    if minutes == _MINUTES_OF_DAY:
        raise ValueError("must be a time of day such as 09:00")
    return time(*divmod(minutes, 60))


@dataclass(frozen=True, slots=True)
class ActiveHours:
    """A part of each day, in minutes after midnight; one that ends before it begins spans it."""

    begin: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``HH:MM-HH:MM``; ``00:00-24:00`` is the whole day.

        Raises:
            ValueError: it is not of that form, or of no length.
        """
        begin, dash, end = text.partition("-")
        if not dash:
            raise ValueError("must be HH:MM-HH:MM, such as 08:00-22:00")
        hours = cls(_minutes(begin.strip()), _minutes(end.strip()))
        if hours.begin == hours.end:
            raise ValueError("begins when it ends: write 00:00-24:00 for the whole day")
        return hours

    def includes(self, moment: datetime) -> bool:
        """Whether a local time is within; the end is not."""
        minute = moment.hour * 60 + moment.minute
        if self.begin < self.end:
            return self.begin <= minute < self.end
        return minute >= self.begin or minute < self.end


def moment_of_day(day: date, at: time, zone: ZoneInfo) -> datetime:
    """The one moment, in UTC, at which a clock of this zone comes to ``at`` on this day.

    Where the clock shows the time twice, the first; where it leaps over it, as much after the
    leap as the time is after the leap's begin.
    """
    return datetime.combine(day, at, tzinfo=zone).astimezone(UTC)


def latest_day(now: datetime, at: time, zone: ZoneInfo, *, delay: float = 0.0) -> date:
    """The newest local day whose ``at``, and ``delay`` seconds more, have come by ``now``."""
    day = now.astimezone(zone).date() + timedelta(days=1)
    while moment_of_day(day, at, zone) + timedelta(seconds=delay) > now:
        day -= timedelta(days=1)
    return day


def _minutes(text: str) -> int:
    if not _CLOCK.fullmatch(text):
        raise ValueError("must be written HH:MM, from 00:00 to 24:00")
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)
