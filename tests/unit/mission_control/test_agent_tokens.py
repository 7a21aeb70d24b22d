"""Agent tokens."""

from typing import Any

import jwt
import pytest

from clasper_worker.errors import ConfigurationError
from clasper_worker.mission_control.agent_tokens import AgentIdentity, AgentTokens

SECRET = "s" * 32
WRITER = AgentIdentity("u1", "writer")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def claims(token: str) -> dict[str, object]:
    options = {"verify_exp": False, "verify_iat": False}
    return jwt.decode(token, SECRET, algorithms=["HS256"], options=options)  # type: ignore[arg-type]


def test_the_claims_are_the_contracts() -> None:
    clock = Clock()
    token = claims(AgentTokens(SECRET, ttl_seconds=300, clock=clock).token_for(WRITER))
    assert token["type"] == "agent"
    assert (token["user_id"], token["agent_role"]) == ("u1", "writer")
    assert (token["iat"], token["exp"]) == (1_000_000, 1_000_300)
    assert token["jti"]


def test_a_token_is_kept_until_it_nears_its_expiry_and_then_renewed() -> None:
    clock = Clock()
    tokens = AgentTokens(SECRET, ttl_seconds=100, clock=clock)
    first = tokens.token_for(WRITER)
    clock.now += 60
    assert tokens.token_for(WRITER) == first
    clock.now += 20
    renewed = tokens.token_for(WRITER)
    assert renewed != first
    assert claims(renewed)["exp"] == int(clock.now) + 100


def test_no_token_is_shared_between_users_or_roles() -> None:
    tokens = AgentTokens(SECRET, max_cached=2)
    identities = [AgentIdentity(user, role) for user in ("a", "b") for role in ("x", "y")]
    for identity in identities * 2:
        token = claims(tokens.token_for(identity))
        assert (token["user_id"], token["agent_role"]) == (identity.user_id, identity.agent_role)


@pytest.mark.parametrize("algorithm", ["HS999", "RS256", "none"])
def test_an_algorithm_that_cannot_sign_is_a_configuration_error(algorithm: str) -> None:
    with pytest.raises(ConfigurationError, match="AGENT_JWT_ALGORITHM"):
        AgentTokens(SECRET, algorithm=algorithm)


def test_no_secret_says_which_variable_to_set(settings_of: Any) -> None:
    with pytest.raises(ConfigurationError, match="AGENT_JWT_SECRET"):
        AgentTokens.from_settings(settings_of())
