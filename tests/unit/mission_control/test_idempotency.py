"""Idempotency keys."""

from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.mission_control.idempotency import task_title_key, turn_step_key

parts = st.tuples(st.text(), st.text(), st.text())


@given(parts, parts)
def test_keys_are_equal_exactly_when_user_turn_and_step_are(
    one: tuple[str, str, str], two: tuple[str, str, str]
) -> None:
    assert (turn_step_key(*one) == turn_step_key(*two)) == (one == two)


def test_a_title_is_another_key_for_another_user() -> None:
    assert task_title_key("a", "T") != task_title_key("b", "T")
    assert task_title_key("a", "T") == task_title_key("a", "T")
