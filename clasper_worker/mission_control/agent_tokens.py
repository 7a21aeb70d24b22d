"""Agent tokens: short-lived JWTs that say for whom and in which role we act (contract Part 1)."""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jwt

from clasper_worker.config.groups import BackendGroup
from clasper_worker.errors import ConfigurationError

# A cached token is renewed when less than this share of its life is left.
_RENEW_BELOW = 0.3
# Minutes, so that one that leaks is soon worth nothing; a long turn has it renewed.
_TTL_SECONDS = 300


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """For whom a turn acts: the tenant's user and the agent's role."""

    user_id: str
    agent_role: str


class AgentTokens:
    """Mints agent tokens and keeps each until it nears its expiry.

    Args:
        secret: shared with the backend (``AGENT_JWT_SECRET``).
        algorithm: ``AGENT_JWT_ALGORITHM``.
        ttl_seconds: how long a token is valid.
        clock: seconds since the epoch.
        max_cached: how many identities to keep tokens for.

    Raises:
        ConfigurationError: the algorithm is unknown or does not fit the secret.
    """

    def __init__(
        self,
        secret: str,
        *,
        algorithm: str = "HS256",
        ttl_seconds: int = _TTL_SECONDS,
        clock: Callable[[], float] = time.time,
        max_cached: int = 10_000,
    ) -> None:
        self._secret = secret
        self._algorithm = algorithm
        self._ttl = ttl_seconds
        self._clock = clock
        self._max_cached = max_cached
        self._cache: dict[AgentIdentity, tuple[str, float]] = {}
        self._sign = self._signer()

    @classmethod
    def from_settings(cls, settings: BackendGroup) -> AgentTokens:
        """Make it from the settings.

        Raises:
            ConfigurationError: no secret is configured.
        """
        if settings.agent_jwt_secret is None:
            raise ConfigurationError(
                "No AGENT_JWT_SECRET is configured: set it to the secret that your backend"
                " verifies X-Agent-Token with",
                {"variable": "AGENT_JWT_SECRET"},
            )
        return cls(
            settings.agent_jwt_secret.get_secret_value(),
            algorithm=settings.agent_jwt_algorithm,
        )

    def token_for(self, identity: AgentIdentity) -> str:
        """A token that is valid for a while yet; renewed here as a long turn goes on."""
        cached = self._cache.get(identity)
        now = self._clock()
        if cached is not None and cached[1] - now > self._ttl * _RENEW_BELOW:
            return cached[0]
        if len(self._cache) >= self._max_cached:
            self._cache.clear()
        token = self._mint(identity)
        self._cache[identity] = (token, now + self._ttl)
        return token

    def _mint(self, identity: AgentIdentity) -> str:
        issued = int(self._clock())
        claims: dict[str, Any] = {
            "type": "agent",
            "user_id": identity.user_id,
            "agent_role": identity.agent_role,
            "agent_id": f"{identity.user_id}:{identity.agent_role}",
            "iat": issued,
            "exp": issued + self._ttl,
            # Names the token; it is the signature that nobody can guess.
            "jti": f"{random.getrandbits(128):032x}",
        }
        payload = json.dumps(claims, separators=(",", ":")).encode()
        return self._sign(payload)

    def _signer(self) -> Callable[[bytes], str]:
        """Signs payloads (RFC 7515); the key is checked and prepared once, not for each token."""
        try:
            jwt.encode({}, self._secret, algorithm=self._algorithm)
            algorithm = jwt.get_algorithm_by_name(self._algorithm)
            key = algorithm.prepare_key(self._secret)
        except (NotImplementedError, TypeError, ValueError, jwt.PyJWTError) as exc:
            raise ConfigurationError(
                f"AGENT_JWT_ALGORITHM={self._algorithm} cannot sign with this AGENT_JWT_SECRET:"
                " use HS256, HS384 or HS512 with a shared secret",
                {"variable": "AGENT_JWT_ALGORITHM"},
            ) from exc
        header = _base64url(json.dumps({"alg": self._algorithm, "typ": "JWT"}).encode())

        def sign(payload: bytes) -> str:
            signed = header + b"." + _base64url(payload)
            return (signed + b"." + _base64url(algorithm.sign(signed, key))).decode()

        return sign


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
