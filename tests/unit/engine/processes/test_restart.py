"""Whether a process that ended on its own is started again."""

from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.engine.processes.restart import RESTART_LIMIT, Restart, next_restart


def test_a_process_that_keeps_ending_is_started_three_times_more_and_later_each_time() -> None:
    restarts = [next_restart(number, ran_seconds=1) for number in range(4)]

    assert restarts == [Restart(1, 0.5), Restart(2, 1.0), Restart(3, 2.0), None]


def test_a_process_that_ran_well_starts_with_a_clean_slate() -> None:
    assert next_restart(RESTART_LIMIT, ran_seconds=60) == Restart(1, 0.5)


@given(st.lists(st.floats(0, 59.9), min_size=RESTART_LIMIT + 1))
def test_however_short_it_runs_it_is_given_up_in_the_end(lifetimes: list[float]) -> None:
    restarts = 0
    decisions = []
    for ran_seconds in lifetimes:
        decision = next_restart(restarts, ran_seconds)
        decisions.append(decision)
        if decision is None:
            break
        restarts = decision.number

    assert decisions[-1] is None
    assert len(decisions) == RESTART_LIMIT + 1
