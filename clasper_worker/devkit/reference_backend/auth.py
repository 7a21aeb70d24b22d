"""Who is calling: agent tokens (JWT) and the internal token (contract, Part 1)."""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

import jwt
from jwt.algorithms import get_default_algorithms
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from clasper_worker.devkit.reference_backend.config import BackendConfig
from clasper_worker.devkit.reference_backend.errors import ApiError, describe
from clasper_worker.errors import ConfigurationError
from clasper_worker.text.bounds import told_problems

# A key shorter than the hash's block (64 bytes for SHA-256, 128 for SHA-384 and SHA-512) is padded
# with zeros by HMAC itself (RFC 2104, section 2), so padding it here gives the same signatures.
# What it saves is PyJWT's warning about short secrets with every single request; the command line
# says it once instead.
_HMAC_PADDING = 64

_TOKENS_KEPT = 1024

_ClaimText = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class _Claims(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    type: Literal["agent"]
    user_id: _ClaimText
    agent_role: _ClaimText
    agent_id: _ClaimText | None = None
    exp: float
    aud: None = None  # PyJWT passes an empty one


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent whose token was accepted.

    Attributes:
        user_id: the tenant that every read and write is scoped to.
        agent_role: the role it acts in.
        agent_id: which agent, where the token says so.
        expires_at: when its token ends, in seconds since the epoch.
    """

    user_id: str
    agent_role: str
    expires_at: float
    agent_id: str | None = None

    @property
    def seconds_left(self) -> float:
        """How long its token is still good for."""
        return max(0.0, self.expires_at - time.time())


def _expired() -> ApiError:
    return ApiError(401, "The agent token has expired; sign a new one.", code="token_expired")


class TokenVerifier:
    """Checks both kinds of token against one backend's settings."""

    def __init__(self, config: BackendConfig) -> None:
        key = config.agent_jwt_secret.encode()
        if config.agent_jwt_algorithm.startswith("HS"):
            key = key.ljust(_HMAC_PADDING, b"\0")
        try:
            get_default_algorithms()[config.agent_jwt_algorithm].prepare_key(key)
        except (jwt.InvalidKeyError, ValueError, TypeError):
            raise ConfigurationError(
                f"AGENT_JWT_SECRET is not a key that {config.agent_jwt_algorithm} can verify with.",
                {"variable": "AGENT_JWT_SECRET"},
            ) from None
        self._key = key
        # A worker shows the same token again and again: only its end has to be checked then.
        self._known = lru_cache(maxsize=_TOKENS_KEPT)(self._verify)
        self._algorithms = [config.agent_jwt_algorithm]
        self._internal = config.internal_api_token.encode() if config.internal_api_token else None

    def agent(self, token: str | None) -> Agent:
        """The agent behind an ``X-Agent-Token``.

        Raises:
            ApiError: 401; the token is missing, expired, not ours, or not an agent's.
        """
        if not token:
            raise ApiError(401, "Send the agent's JWT in the X-Agent-Token header.")
        agent = self._known(token)
        if agent.seconds_left == 0:
            raise _expired()
        return agent

    def _verify(self, token: str) -> Agent:
        try:
            payload = jwt.decode(
                token,
                self._key,
                algorithms=self._algorithms,
                # The contract's tokens name no audience: one that does is meant for another
                # service, which signs with the same secret.
                options={"require": ["exp"], "verify_aud": True},
            )
            claims = _Claims.model_validate(payload)
        except jwt.ExpiredSignatureError:
            raise _expired() from None
        except ValidationError as exc:
            fields = describe(exc.errors(include_input=False, include_url=False))
            text, details = told_problems(fields)
            raise ApiError(
                401,
                f"The agent token's claims are wrong: {text}",
                details={"claims": details["fields"]},
            ) from None
        except jwt.MissingRequiredClaimError:
            raise ApiError(
                401, "The agent token never ends; sign one with `exp`, a few minutes ahead."
            ) from None
        except jwt.InvalidAudienceError:
            raise ApiError(
                401, "The agent token is for another audience; sign one without `aud`."
            ) from None
        except (jwt.InvalidTokenError, TypeError, OverflowError):
            # The last two are PyJWT's for an `exp` that is no number, or an endless one.
            raise ApiError(
                401,
                "The agent token is not valid: it must be a JWT signed with AGENT_JWT_SECRET and "
                f"{self._algorithms[0]}.",
            ) from None
        return Agent(claims.user_id, claims.agent_role, claims.exp, claims.agent_id)

    def internal(self, token: str | None) -> None:
        """Check an ``X-Internal-Token``, in constant time.

        Args:
            token: the header as ASGI servers decode it (Latin-1), or None.

        Raises:
            ApiError: 401; it is missing, wrong, or this backend has none.
        """
        if self._internal is None:
            raise ApiError(401, "This backend was started without INTERNAL_API_TOKEN.")
        if not token:
            raise ApiError(401, "Send INTERNAL_API_TOKEN in the X-Internal-Token header.")
        if not hmac.compare_digest(token.encode("latin-1"), self._internal):
            raise ApiError(401, "X-Internal-Token is not this backend's INTERNAL_API_TOKEN.")
