from __future__ import annotations

import base64
import json
import time
import warnings
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from clasper_worker.devkit.reference_backend import BackendConfig
from clasper_worker.devkit.reference_backend.auth import Agent, TokenVerifier
from clasper_worker.devkit.reference_backend.errors import ApiError
from clasper_worker.errors import ConfigurationError

SECRET = "a-secret-of-the-tests-" + "long-enough-for-every-algorithm-" * 2
CLAIMS: dict[str, Any] = {
    "type": "agent",
    "user_id": "u1",
    "agent_role": "writer",
    "exp": int(time.time()) + 3600,
}


def verifier(**settings: Any) -> TokenVerifier:
    return TokenVerifier(
        BackendConfig(**{"agent_jwt_secret": SECRET, "internal_api_token": "inner", **settings})
    )


def sign(claims: dict[str, Any], secret: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, secret, algorithm=algorithm)


def unsigned(claims: dict[str, Any]) -> str:
    parts = [{"alg": "none", "typ": "JWT"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts]
    return ".".join([*encoded, ""])


def without(claim: str) -> dict[str, Any]:
    return {name: value for name, value in CLAIMS.items() if name != claim}


def refusal(act: Callable[[], object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        act()
    return caught.value


def test_accepts_an_agents_token() -> None:
    """The claims become the caller; unknown claims are ignored."""
    end = int(time.time()) + 60
    token = sign({**CLAIMS, "agent_id": "a7", "exp": end, "jti": "x", "more": [1]})
    assert verifier().agent(token) == Agent("u1", "writer", end, "a7")


def test_refuses_a_token_without_end() -> None:
    """One that was overheard would be good for ever."""
    error = refusal(lambda: verifier().agent(sign(without("exp"))))
    assert (error.status, "exp" in error.message) == (401, True)


@pytest.mark.parametrize("audience", ["mission-control", ["a", "b"], "", "clasper"])
def test_refuses_a_token_for_another_audience(audience: object) -> None:
    """The contract's tokens name none, so one that does is for another service."""
    error = refusal(lambda: verifier().agent(sign({**CLAIMS, "aud": audience})))
    assert error.status == 401


@pytest.mark.parametrize("token", [None, "", "nonsense", "a.b.c", "ä.ö.ü", "e30.e30.e30"])
def test_refuses_what_is_no_token(token: str | None) -> None:
    """401, whatever is sent."""
    assert refusal(lambda: verifier().agent(token)).status == 401


@pytest.mark.parametrize(
    "token",
    [
        sign(CLAIMS, "another-secret-that-is-also-long-enough"),
        sign(CLAIMS, algorithm="HS512"),
        unsigned(CLAIMS),
        sign(CLAIMS)[:-4] + "AAAA",
    ],
    ids=["other secret", "other algorithm", "unsigned", "forged signature"],
)
def test_refuses_tokens_that_are_not_signed_as_agreed(token: str) -> None:
    """The algorithm is pinned, too."""
    assert refusal(lambda: verifier().agent(token)).status == 401


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        ({"type": "user"}, "type"),
        ({"type": None}, "type"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": 7}, "user_id"),
        ({"user_id": None}, "user_id"),
        ({"user_id": "\ud800"}, "user_id"),
        ({"agent_role": None}, "agent_role"),
        ({"agent_role": "x" * 256}, "agent_role"),
        ({"agent_id": []}, "agent_id"),
    ],
)
def test_refuses_wrong_claims_and_names_them(change: dict[str, Any], claim: str) -> None:
    """The one who signs has to know which claim to fix."""
    error = refusal(lambda: verifier().agent(sign({**CLAIMS, **change})))
    assert error.status == 401
    assert [item["field"] for item in error.details["claims"]] == [claim]


@pytest.mark.parametrize("claim", ["type", "user_id", "agent_role"])
def test_refuses_missing_claims(claim: str) -> None:
    """Without a tenant or a role there is no agent."""
    claims = {name: value for name, value in CLAIMS.items() if name != claim}
    assert refusal(lambda: verifier().agent(sign(claims))).status == 401


@pytest.mark.parametrize("end", [1, 0, -5.5, "soon", [], float("inf"), float("nan")])
def test_refuses_ends_that_are_past_or_no_time(end: object) -> None:
    """401, and not a failure of the backend."""
    assert refusal(lambda: verifier().agent(sign({**CLAIMS, "exp": end}))).status == 401


def test_a_token_that_was_good_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is remembered once verified; its end still counts."""
    tokens = verifier()
    now = time.time()
    token = sign({**CLAIMS, "exp": now + 60})
    tokens.agent(token)
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert refusal(lambda: tokens.agent(token)).code == "token_expired"


def test_refuses_a_token_that_is_not_valid_yet() -> None:
    """`nbf` is honoured like `exp`."""
    token = sign({**CLAIMS, "nbf": time.time() + 600})
    assert refusal(lambda: verifier().agent(token)).status == 401


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("secret", ["dev-secret-change-me", "x", "y" * 63, "z" * 64, "w" * 200])
def test_takes_secrets_of_any_length_without_warnings(secret: str, algorithm: str) -> None:
    """What PyJWT signs with a secret of any length is accepted, and no request warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jwt.warnings.InsecureKeyLengthWarning)
        token = sign(CLAIMS, secret, algorithm)
    tokens = verifier(agent_jwt_secret=secret, agent_jwt_algorithm=algorithm)
    assert tokens.agent(token).user_id == "u1"


def test_refuses_a_public_key_as_shared_secret() -> None:
    """The classical confusion of algorithms is a configuration error."""
    pem = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQ\n-----END PUBLIC KEY-----\n"
    with pytest.raises(ConfigurationError) as caught:
        verifier(agent_jwt_secret=pem)
    assert caught.value.details["variable"] == "AGENT_JWT_SECRET"


def test_accepts_the_internal_token() -> None:
    """Only the very same one."""
    verifier().internal("inner")


def test_accepts_an_internal_token_beyond_ascii() -> None:
    """Servers decode headers as Latin-1, whatever was sent."""
    tokens = verifier(internal_api_token="geheim-ß")
    tokens.internal("geheim-ß".encode().decode("latin-1"))


@pytest.mark.parametrize("token", [None, "", "Inner", "inner ", "innerinner", "ü"])
def test_refuses_other_internal_tokens(token: str | None) -> None:
    """401 for anything else."""
    assert refusal(lambda: verifier().internal(token)).status == 401


@pytest.mark.parametrize("token", [None, "", "None"])
def test_without_an_internal_token_nobody_is_internal(token: str | None) -> None:
    """An unset token is not an empty password."""
    assert refusal(lambda: verifier(internal_api_token=None).internal(token)).status == 401


def test_no_refusal_tells_the_secrets() -> None:
    """Error messages are shown to callers."""
    tokens = verifier()
    errors = [refusal(lambda: tokens.agent("x")), refusal(lambda: tokens.internal("x"))]
    assert not any(secret in str(e) for e in errors for secret in (SECRET, "inner"))
