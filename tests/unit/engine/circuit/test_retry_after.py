"""How long a host asks us to wait."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.engine.circuit.retry_after import retry_after

NOW = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Tue, 01 Jan 2030 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Tue, 01 Jan 2030 12:00:30"}, 30.0),
        ({"retry-after": "Tue, 01 Jan 2030 11:00:00 GMT"}, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"x-ratelimit-reset-requests": "1s"}, 1.0),
        ({"x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-reset-requests": "120ms"}, 0.12),
        ({"x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "0",
          "x-ratelimit-reset-requests": "120ms"}, 360.0),
        ({"x-ratelimit-reset-tokens": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-reset-tokens": "7.5"}, 7.5),
        ({"x-ratelimit-reset-tokens": "later"}, None),
        ({"retry-after": "3", "x-ratelimit-reset-requests": "60s"}, 3.0),
    ],
)  # fmt: skip
def test_the_wait_is_read_from_each_header_that_hosts_send(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers, now=lambda: NOW) == (
        None if seconds is None else pytest.approx(seconds)
    )


NAMES = ["retry-after", "retry-after-ms", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"]
VALUES = st.one_of(st.text(max_size=30), st.from_regex(r"[0-9.smhd:, A-Z+-]{1,25}"))


@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_whatever_the_headers_hold_it_is_more_than_nothing_or_not_named(
    headers: dict[str, str],
) -> None:
    seconds = retry_after(headers)
    assert seconds is None or seconds > 0
