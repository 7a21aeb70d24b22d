"""Which backend is checked, and with what."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from clasper_worker.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Target:
    """A backend, and what its callers show it.

    Attributes:
        url: its base address.
        secret: signs agent tokens; None where there is only `agent_token`.
        algorithm: of the signatures.
        agent_token: one token that somebody else signed.
        internal_token: for the dispatcher's endpoints; None skips their checks.

    Raises:
        ConfigurationError: no usable address, or neither a secret nor a token.
    """

    url: str
    secret: str | None = field(default=None, repr=False)
    algorithm: str = "HS256"
    agent_token: str | None = field(default=None, repr=False)
    internal_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigurationError(
                "CONTROL_PLANE_URL is no http:// or https:// address: set it, or give --url",
                {"variable": "CONTROL_PLANE_URL"},
            )
        if self.secret is None and self.agent_token is None:
            raise ConfigurationError(
                "There is neither AGENT_JWT_SECRET nor AGENT_TOKEN: set the secret that the backend"
                " verifies agent tokens with (all checks), or one token (some are skipped)",
                {"variable": "AGENT_JWT_SECRET"},
            )
        for name, value in (
            ("AGENT_TOKEN", self.agent_token),
            ("INTERNAL_API_TOKEN", self.internal_token),
        ):
            if value is not None and not (value.isascii() and value.isprintable()):
                raise ConfigurationError(
                    f"{name} has characters that no header can carry: set it without line breaks",
                    {"variable": name},
                )

    @property
    def host(self) -> str:
        """The name in its address."""
        return urlsplit(self.url).hostname or ""

    @property
    def shown_url(self) -> str:
        """Its address as a report may have it: without a password, and without a query."""
        parts = urlsplit(self.url)
        place = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{place}{parts.path}"

    def token_user(self) -> str | None:
        """The ``user_id`` that `agent_token` names; None where it cannot be read."""
        try:
            payload = (self.agent_token or "").split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            return str(claims["user_id"])
        except (IndexError, ValueError, KeyError, TypeError):
            return None

    def without_secrets(self, text: str) -> str:
        """A text with our secrets taken out, should a backend repeat them."""
        for secret in (self.secret, self.agent_token, self.internal_token):
            if secret:
                text = text.replace(secret, "***")
        return text
