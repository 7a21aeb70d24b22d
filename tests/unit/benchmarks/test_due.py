"""The check of what the schedule enqueued."""

from itertools import pairwise

from due import check_enqueued, users_due
from hypothesis import given
from hypothesis import strategies as st
from turns import Faults

from clasper_worker.periodic.agents import Agent

AGENTS = [Agent.of({"user_id": f"u{number}", "agent_role": "r"}) for number in range(200)]
EVERYBODY = {agent.user_id for agent in AGENTS}
START = 1_800_000_000.0


def test_in_an_interval_everybody_comes_due() -> None:
    assert users_due(AGENTS, 600, START, START + 600) == EVERYBODY
    assert users_due(AGENTS, 600, START, START) == set()


@given(st.floats(0, 600), st.floats(0, 600))
def test_parts_of_an_interval_share_everybody_among_them(one: float, other: float) -> None:
    first, second = sorted((one, other))
    moments = [START, START + first, START + second, START + 600]
    parts = [users_due(AGENTS, 600, *ends) for ends in pairwise(moments)]
    assert sum(map(len, parts)) == len(AGENTS)
    assert set().union(*parts) == EVERYBODY


def test_who_is_missing_not_due_or_there_twice_is_a_fault() -> None:
    assert check_enqueued({"a", "b"}, ["b", "a"]) == Faults()
    assert check_enqueued({"a", "b"}, ["a", "a", "c"]) == Faults(missing=1, wrong=1, doubled=1)
