"""When a webhook is tried again."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.config.settings import Settings
from clasper_worker.webhooks.backoff import RetrySchedule


def test_the_defaults_are_eight_attempts_in_most_of_an_hour(
    settings_of: Callable[..., Settings],
) -> None:
    schedule = RetrySchedule.from_settings(settings_of())
    pauses = [schedule.pause(attempt) for attempt in range(1, 9)]
    assert pauses[-1] is None
    waited = [pause for pause in pauses if pause is not None]
    assert len(waited) == 7
    assert 40 * 60 <= sum(waited) <= 60 * 60
    assert 15 <= waited[0] <= 20


@given(st.integers(1, 10**6), st.none() | st.floats(min_value=0))
def test_no_pause_is_longer_than_the_longest(attempt: int, asked: float | None) -> None:
    schedule = RetrySchedule(attempts=10**7, first_pause=20, longest_pause=600)
    pause = schedule.pause(attempt, retry_after=asked)
    assert pause is not None
    assert 0 <= pause <= 600


def test_what_the_receiver_asks_for_is_heeded() -> None:
    assert RetrySchedule().pause(1, retry_after=42.0) == 42.0
    assert RetrySchedule(attempts=1).pause(1, retry_after=42.0) is None


def test_pauses_grow() -> None:
    schedule = RetrySchedule(first_pause=1, longest_pause=600)
    first, second, third = (schedule.pause(attempt) or 0 for attempt in (1, 2, 3))
    assert first < second < third


def test_a_waiting_delivery_is_back_before_the_broker_takes_it_for_lost(
    settings_of: Callable[..., Settings],
) -> None:
    schedule = RetrySchedule.from_settings(settings_of(clasper_turn_hard_limit_sec=30))
    assert schedule.pause(5, retry_after=10_000) == 30
