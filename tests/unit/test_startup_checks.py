"""Times that contradict each other are told, with both variables, both values and the fix."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.config.settings import Settings
from clasper_worker.errors import ConfigurationError
from clasper_worker.runtime import journal_seconds
from clasper_worker.startup_checks import contradictions, refuse_contradictions


def found(settings: Settings) -> list[tuple[str, str]]:
    return [item.variables for item in contradictions(settings)]


def test_the_defaults_agree(settings_of: Callable[..., Settings]) -> None:
    assert contradictions(settings_of()) == ()
    refuse_contradictions(settings_of())


SOFT, HARD = "CLASPER_TURN_SOFT_LIMIT_SEC", "CLASPER_TURN_HARD_LIMIT_SEC"


@pytest.mark.parametrize(
    ("given_", "variables"),
    [
        ({"clasper_turn_soft_limit_sec": 600}, (SOFT, HARD)),
        ({"clasper_turn_soft_limit_sec": 900}, (SOFT, HARD)),
        ({"clasper_turn_hard_limit_sec": 300}, (SOFT, HARD)),
        ({"clasper_outage_wait_sec": 300}, ("CLASPER_OUTAGE_WAIT_SEC", SOFT)),
        ({"clasper_result_ttl_sec": 599}, (HARD, "CLASPER_RESULT_TTL_SEC")),
        ({"clasper_turn_hard_limit_sec": 90_000}, (HARD, "CLASPER_RESULT_TTL_SEC")),
        ({"clasper_llm_timeout_sec": 601}, ("CLASPER_LLM_TIMEOUT_SEC", HARD)),
        ({"clasper_backend_timeout_sec": 601}, ("CLASPER_BACKEND_TIMEOUT_SEC", HARD)),
        ({"clasper_visibility_timeout_sec": 601}, ("CLASPER_VISIBILITY_TIMEOUT_SEC", HARD)),
        (
            {"dispatch_max_interval_sec": 1},
            ("DISPATCH_MIN_INTERVAL_SEC", "DISPATCH_MAX_INTERVAL_SEC"),
        ),
        (
            {"clasper_webhook_attempts": 50, "clasper_result_ttl_sec": 7200},
            ("CLASPER_WEBHOOK_ATTEMPTS", "CLASPER_RESULT_TTL_SEC"),
        ),
    ],
)
def test_each_contradiction_names_both_variables_and_values_and_the_fix(
    settings_of: Callable[..., Settings], given_: dict[str, Any], variables: tuple[str, str]
) -> None:
    (item,) = contradictions(settings_of(**given_))
    assert item.variables == variables
    for variable, value in zip(item.variables, item.values, strict=True):
        assert variable in item.problem
        assert variable in item.fix
        assert f"{value:g}" in item.problem


@pytest.mark.parametrize(
    "given_",
    [
        {"clasper_turn_soft_limit_sec": 5, "clasper_turn_hard_limit_sec": 10},
        {"dispatch_min_interval_sec": 60},
        {"clasper_result_ttl_sec": 600},
    ],
)
def test_a_default_that_merely_loses_its_effect_is_no_contradiction(
    settings_of: Callable[..., Settings], given_: dict[str, Any]
) -> None:
    assert contradictions(settings_of(**given_)) == ()


def test_what_is_as_long_as_it_may_be_agrees(settings_of: Callable[..., Settings]) -> None:
    given_ = {
        "clasper_turn_soft_limit_sec": 99,
        "clasper_turn_hard_limit_sec": 100,
        "clasper_outage_wait_sec": 98,
        "clasper_llm_timeout_sec": 100,
        "clasper_backend_timeout_sec": 100,
        "clasper_visibility_timeout_sec": 100,
        "clasper_result_ttl_sec": 100,
        "dispatch_min_interval_sec": 7,
        "dispatch_max_interval_sec": 7,
    }
    assert contradictions(settings_of(**given_)) == ()


def test_all_contradictions_are_told_at_once(settings_of: Callable[..., Settings]) -> None:
    settings = settings_of(clasper_turn_soft_limit_sec=700, clasper_result_ttl_sec=60)
    with pytest.raises(ConfigurationError) as caught:
        refuse_contradictions(settings)
    told = [tuple(item["variables"]) for item in caught.value.details["contradictions"]]
    assert told == [(SOFT, HARD), (HARD, "CLASPER_RESULT_TTL_SEC")]
    for number in ("700 s", "600 s", "60 s"):
        assert number in str(caught.value)


seconds = st.integers(60, 3000)


@given(seconds, seconds, seconds, seconds)
def test_only_times_in_their_order_are_accepted(
    wait: int, soft: int, hard: int, result_ttl: int
) -> None:
    settings = Settings(
        _env_file=None,
        clasper_outage_wait_sec=wait,
        clasper_turn_soft_limit_sec=soft,
        clasper_turn_hard_limit_sec=hard,
        clasper_result_ttl_sec=result_ttl,
    )
    assert (contradictions(settings) == ()) == (wait < soft < hard <= result_ttl)


@given(st.floats(2, 90_000), st.integers(0, 90_000), st.floats(0, 1), st.integers(1, 100))
def test_a_turn_is_remembered_until_the_last_of_its_runs_has_ended(
    hard: float, more: int, share: float, deliveries: int
) -> None:
    result_ttl = max(60, math.ceil(hard)) + more
    lease = 2 + share * (min(hard, 3600) - 2)
    settings = Settings(
        _env_file=None,
        clasper_turn_soft_limit_sec=hard / 2,
        clasper_turn_hard_limit_sec=hard,
        clasper_result_ttl_sec=result_ttl,
        clasper_visibility_timeout_sec=lease,
        clasper_max_deliveries=deliveries,
    )
    assert not contradictions(settings)
    remembered = journal_seconds(settings)
    assert remembered >= result_ttl
    assert remembered > (hard + lease) * deliveries
    assert remembered > settings.outage_wait_sec
