from __future__ import annotations

import pytest

from clasper_worker.devkit.reference_backend import FEATURES, BackendConfig
from clasper_worker.errors import ConfigurationError


def test_shows_no_secret() -> None:
    """A config that is logged by accident gives neither token away."""
    text = repr(BackendConfig(agent_jwt_secret="SECRET-1", internal_api_token="SECRET-2"))
    assert "SECRET" not in text


def test_names_the_variable_when_the_secret_is_empty() -> None:
    """An empty secret would accept anybody's tokens."""
    with pytest.raises(ConfigurationError) as caught:
        BackendConfig(agent_jwt_secret="")
    assert caught.value.details["variable"] == "AGENT_JWT_SECRET"


@pytest.mark.parametrize("algorithm", ["none", "HS1", "hs256", ""])
def test_refuses_algorithms_that_cannot_be_verified(algorithm: str) -> None:
    """`none` above all: it would accept unsigned tokens."""
    with pytest.raises(ConfigurationError) as caught:
        BackendConfig(agent_jwt_secret="x", agent_jwt_algorithm=algorithm)
    assert caught.value.details["variable"] == "AGENT_JWT_ALGORITHM"


def test_refuses_to_disable_what_it_does_not_know() -> None:
    """A typing error must not leave a feature on unnoticed."""
    with pytest.raises(ConfigurationError, match="standups"):
        BackendConfig(agent_jwt_secret="x", disabled_features=frozenset({"standups"}))


@pytest.mark.parametrize(
    "settings", [{"events_kept": 0}, {"max_body_bytes": 0}, {"keepalive_seconds": -1}]
)
def test_refuses_numbers_out_of_range(settings: dict[str, int]) -> None:
    """Limits that would make the backend useless are refused at once."""
    with pytest.raises(ConfigurationError):
        BackendConfig(agent_jwt_secret="x", **settings)  # type: ignore[arg-type]


def test_offers_everything_with_both_tokens() -> None:
    """All features are on unless switched off."""
    config = BackendConfig(agent_jwt_secret="x", internal_api_token="y")
    said = config.capabilities()
    assert said["contract_version"] == "v1"
    assert said["features"] == dict.fromkeys(FEATURES, True)
    assert said["features_list"] == [
        *FEATURES,
        "tool_discovery",
        "/api/tools",
        "/api/tools/{tool_name}",
    ]


def test_without_internal_token_its_features_are_off() -> None:
    """What cannot be called is not offered."""
    config = BackendConfig(agent_jwt_secret="x")
    assert {name for name in FEATURES if not config.has(name)} == {
        "notifications_dispatch",
        "agents",
    }
