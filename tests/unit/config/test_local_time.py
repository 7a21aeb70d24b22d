"""Hours of an agent's own day."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.config.local_time import (
    ActiveHours,
    check_timezone,
    latest_day,
    moment_of_day,
    parse_time_of_day,
)

BERLIN = ZoneInfo("Europe/Berlin")


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 1, 1, hour, minute, tzinfo=UTC)


def test_active_hours_begin_at_their_begin_and_end_before_their_end() -> None:
    hours = ActiveHours.parse("08:00-22:00")
    assert [hours.includes(at(*when)) for when in ((7, 59), (8, 0), (21, 59), (22, 0))] == [
        False,
        True,
        True,
        False,
    ]


def test_active_hours_may_go_past_midnight_or_be_the_whole_day() -> None:
    night = ActiveHours.parse("22:00-6:00")
    assert [night.includes(at(hour)) for hour in (21, 22, 0, 5, 6)] == [False, *[True] * 3, False]
    assert all(ActiveHours.parse("00:00-24:00").includes(at(hour)) for hour in range(24))


@pytest.mark.parametrize("text", ["", "8-22", "08:00", "08:00-08:00", "25:00-26:00", "a-b"])
def test_what_are_no_hours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be|begins"):
        ActiveHours.parse(text)


@pytest.mark.parametrize("text", ["24:00", "9", "09:60", ""])
def test_what_is_no_time_of_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_time_of_day(text)
    with pytest.raises(ValueError, match="IANA"):
        check_timezone("Mars/Base")


def test_a_time_that_the_clock_leaps_over_comes_after_the_leap() -> None:
    assert moment_of_day(date(2026, 3, 29), time(2, 30), BERLIN) == datetime(
        2026, 3, 29, 1, 30, tzinfo=UTC
    )


def test_a_time_that_the_clock_shows_twice_comes_once() -> None:
    first = moment_of_day(date(2026, 10, 25), time(2, 30), BERLIN)
    assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    days = {latest_day(first + timedelta(minutes=m), time(2, 30), BERLIN) for m in range(180)}
    assert days == {date(2026, 10, 25)}


@given(
    st.integers(1_704_067_200, 1_893_456_000).map(lambda at: datetime.fromtimestamp(at, UTC)),
    st.times().map(lambda value: value.replace(second=0, microsecond=0)),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia", "Asia/Kolkata"]),
)
def test_each_day_comes_once_and_in_order(now: datetime, when: time, zone: str) -> None:
    place = ZoneInfo(zone)
    day = latest_day(now, when, place)
    assert moment_of_day(day, when, place) <= now
    assert moment_of_day(day + timedelta(days=1), when, place) > now
    assert latest_day(now + timedelta(days=1, hours=2), when, place) > day
