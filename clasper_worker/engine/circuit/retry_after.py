"""How long a host asks us to wait, by the headers of its answer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_RATE_LIMITS = ("requests", "tokens")
_PART = re.compile(r"(?<!\d)(\d++(?:\.\d++)?+)(ms|us|µs|ns|d|h|m|s)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0,
            "d": 86_400.0}  # fmt: skip


def retry_after(
    headers: Mapping[str, str], *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> float | None:
    """The wait asked for in seconds, more than 0; None where no time is named.

    Reads ``retry-after-ms`` (OpenAI), ``Retry-After`` (RFC 9110, 10.2.3: seconds or an HTTP
    date), then OpenAI's ``x-ratelimit-reset-requests`` and ``-tokens`` (durations such as
    ``6m0s``): of the limits that are used up the later, else the sooner of those given.

    Args:
        headers: the answer's, by lower-case name or case-insensitive.
        now: the time of day, for dates.
    """
    named = _number(headers.get("retry-after-ms"), 1e-3)
    if named is None:
        named = _number(headers.get("retry-after"), 1.0)
    if named is None:
        named = _date(headers.get("retry-after"), now)
    if named is None:
        named = _reset(headers)
    return named if named is not None and named > 0 else None


def _number(value: str | None, unit: float) -> float | None:
    try:
        seconds = float(value) * unit if value is not None else math.nan
    except ValueError:
        return None
    return None if math.isnan(seconds) else seconds


def _date(value: str | None, now: Callable[[], datetime]) -> float | None:
    if value is None:
        return None
    try:
        moment = parsedate_to_datetime(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (moment - now()).total_seconds()
    except (ValueError, OverflowError):
        return None


def _reset(headers: Mapping[str, str]) -> float | None:
    given: list[float] = []
    used_up: list[float] = []
    for limit in _RATE_LIMITS:
        seconds = _duration(headers.get(f"x-ratelimit-reset-{limit}"))
        if seconds is None:
            continue
        given.append(seconds)
        if headers.get(f"x-ratelimit-remaining-{limit}", "").strip() == "0":
            used_up.append(seconds)
    if used_up:
        return max(used_up)
    return min(given, default=None)


def _duration(value: str | None) -> float | None:
    if value is None:
        return None
    text = value.strip()
    if not _DURATION.fullmatch(text):
        return _number(text, 1.0)
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
