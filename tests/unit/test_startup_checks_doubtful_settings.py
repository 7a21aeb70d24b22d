"""What a worker warns of at its start."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clasper_worker.config.settings import Settings, load_settings
from clasper_worker.startup_checks import configured_names, doubtful_settings

SECRET = "s" * 32


def test_a_misspelt_variable_is_named_with_the_one_that_is_meant(
    settings_of: Callable[..., Settings],
) -> None:
    names = ("CLASPER_BUSI_POLICY", "clasper_lane_depth", "PATH", "CLASPER_BUSY_POLICY")
    (doubt,) = doubtful_settings(settings_of(agent_jwt_secret=SECRET), names)
    assert doubt.variable == "CLASPER_BUSI_POLICY"
    assert "is it CLASPER_BUSY_POLICY?" in doubt.fix


def test_an_unknown_variable_that_is_like_none_is_told_without_a_guess(
    settings_of: Callable[..., Settings],
) -> None:
    (doubt,) = doubtful_settings(settings_of(agent_jwt_secret=SECRET), ["CLASPER_ZZZ"])
    assert doubt.fix == ".env.example has them all"


def test_a_variable_that_was_a_setting_once_is_named_as_such_and_breaks_nothing(
    settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLASPER_LLM_RETRIES", "many")
    (doubt,) = doubtful_settings(settings_of(agent_jwt_secret=SECRET), ["clasper_llm_retries"])
    assert (doubt.variable, doubt.fix) == ("CLASPER_LLM_RETRIES", "remove it")
    assert load_settings().openai_api_key is None


@pytest.mark.parametrize(
    ("algorithm", "length", "doubted"),
    [("HS256", 31, True), ("HS256", 32, False), ("HS512", 63, True), ("RS256", 5, False)],
)
def test_a_secret_too_short_for_its_algorithm_is_told_without_its_value(
    settings_of: Callable[..., Settings], algorithm: str, length: int, *, doubted: bool
) -> None:
    settings = settings_of(agent_jwt_secret="s" * length, agent_jwt_algorithm=algorithm)
    doubts = doubtful_settings(settings, ())
    assert [doubt.variable for doubt in doubts] == ["AGENT_JWT_SECRET"] * doubted
    assert "sssss" not in repr(doubts)


def test_names_are_those_of_the_environment_and_of_the_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("CLASPER_IN_FILE=1\n")
    monkeypatch.setenv("CLASPER_IN_ENVIRONMENT", "1")
    assert {"CLASPER_IN_FILE", "CLASPER_IN_ENVIRONMENT"} <= set(configured_names())


def test_agents_that_cannot_be_read_are_told_before_their_first_heartbeat(
    settings_of: Callable[..., Settings],
) -> None:
    settings = settings_of(agent_jwt_secret=SECRET, clasper_agents="u1:writer,u2:no/role")
    (doubt,) = doubtful_settings(settings, ())
    assert doubt.variable == "CLASPER_AGENTS"
    assert doubt.problem.startswith("entry 2: agent_role: ")
    readable = settings_of(agent_jwt_secret=SECRET, clasper_agents="u1:writer@Europe/Berlin")
    assert doubtful_settings(readable, ()) == ()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("AGENT_JWT_SECRT", "AGENT_JWT_SECRET"),
        ("AGENT_DAEMON_KEY", "AGENT_DAEMON_API_KEY"),
        ("BACKEND_URI", "BACKEND_URL"),
        ("CELERY_BROKER", "CELERY_BROKER_URL"),
        ("CLASPER_BACKEND_URL", "BACKEND_URL"),
        ("CLASPER_OPENAI_API_KEY", "OPENAI_API_KEY"),
        ("DISPATCH_MIN_INTERVAL", "DISPATCH_MIN_INTERVAL_SEC"),
        ("INTERNAL_API_KEY", "INTERNAL_API_TOKEN"),
        ("LLM_MODEL", "LLM_MODEL_DEFAULT"),
        ("OPENAI_API_BASE", "OPENAI_BASE_URL"),
    ],
)
def test_a_near_miss_of_any_setting_is_named_with_it(
    settings_of: Callable[..., Settings], name: str, meant: str
) -> None:
    settings = settings_of(agent_jwt_secret=SECRET)
    (doubt,) = doubtful_settings(settings, (name, "PATH", "HOME"))
    assert (doubt.variable, doubt.fix) == (name, f"is it {meant}? .env.example has them all")


@pytest.mark.parametrize(
    "name",
    ["USER", "USERNAME", "OPENAI_ORG_ID", "CELERY_CONFIG_MODULE", "AGENT_PORT", "BACKENDS_URL"],
)
def test_a_name_that_is_somebody_elses_is_left_alone(
    settings_of: Callable[..., Settings], name: str
) -> None:
    assert doubtful_settings(settings_of(agent_jwt_secret=SECRET), (name,)) == ()


def test_a_name_like_one_that_is_set_too_is_left_alone(
    settings_of: Callable[..., Settings],
) -> None:
    """Whoever sets both means both."""
    names = ("BACKEND_URI", "BACKEND_URL")
    assert doubtful_settings(settings_of(agent_jwt_secret=SECRET), names) == ()
