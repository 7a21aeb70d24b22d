"""Retry-After, as servers send it."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.retry_after import parse_retry_after


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("soon", None), ("nan", None)],
)
def test_seconds_are_read(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value) == seconds


def test_a_date_is_the_time_until_then() -> None:
    then = datetime.now(UTC) + timedelta(hours=1)
    seconds = parse_retry_after(format_datetime(then, usegmt=True))
    assert seconds is not None
    assert 3000 < seconds <= 3600


def test_a_date_that_has_passed_is_now() -> None:
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


@given(st.text())
def test_any_text_is_a_pause_or_none(value: str) -> None:
    seconds = parse_retry_after(value)
    assert seconds is None or seconds >= 0
