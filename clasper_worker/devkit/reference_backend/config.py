"""What a reference backend is started with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from jwt.algorithms import get_default_algorithms

from clasper_worker.errors import ConfigurationError

CONTRACT_VERSION = "v1"

IN_MEMORY = ":memory:"

# Feature name → what is behind it. The first eight are the contract's; the others are additive,
# as clients ignore features that they do not know.
FEATURES = {
    "tasks": "list, create and change tasks",
    "messages": "post messages",
    "documents": "post documents",
    "notifications_dispatch": "undelivered notifications for the dispatcher (internal token)",
    "events_sse": "server-sent events",
    "heartbeat": "record heartbeats",
    "standup": "the backend's own standup",
    "tool_requests": "approvals of tool calls",
    "notifications": "list and create a user's notifications",
    "history": "list messages and documents",
    "agents": "the agents that get heartbeats and standups (internal token)",
    "tools": "tools that the backend offers and runs",
}

# How the original's clients find that there are tools, in `features_list`.
_TOOL_NAMES = ["tool_discovery", "/api/tools", "/api/tools/{tool_name}"]

# These are called with the internal token alone, so without one they cannot be reached.
_INTERNAL_FEATURES = frozenset({"notifications_dispatch", "agents"})


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """Settings of one reference backend.

    Args:
        agent_jwt_secret: verifies agent tokens; for HS256, HS384 and HS512 the shared secret, for
            the other algorithms the public key in PEM.
        agent_jwt_algorithm: the one accepted signature algorithm (RFC 7518 name, not ``none``).
        internal_api_token: what ``X-Internal-Token`` must equal; None switches off the features
            that need it (``notifications_dispatch``, ``agents``).
        database: path of the SQLite file, made when it is not there, or ``:memory:``.
        registers_agents: whether an agent that posts a message is from then on listed among the
            agents that get heartbeats and standups (``agents``).
        disabled_features: names from `FEATURES` that answer 404 ``feature_disabled``.
        keepalive_seconds: how often an idle event stream gets a comment line; 0 for never.
        events_kept: how many of the newest events, over all tenants, can be resumed from.
        max_body_bytes: a larger request body is refused with 413.
        page: whether ``/`` shows the page, which acts for every user without a sign-in.
        daemon_url: of the worker's HTTP shim, which the page asks for turns; None: no worker.
        daemon_key: that the shim wants, if it wants one.
        workspace: the folder that tells which roles the page offers.

    Raises:
        ConfigurationError: a value cannot be used; names the variable or option.
    """

    agent_jwt_secret: str = field(repr=False)
    agent_jwt_algorithm: str = "HS256"
    internal_api_token: str | None = field(default=None, repr=False)
    database: str = IN_MEMORY
    registers_agents: bool = False
    disabled_features: frozenset[str] = frozenset()
    keepalive_seconds: float = 15.0
    events_kept: int = 10_000
    max_body_bytes: int = 8 * 1024 * 1024
    page: bool = False
    daemon_url: str | None = None
    daemon_key: str | None = field(default=None, repr=False)
    workspace: Path | None = None

    def __post_init__(self) -> None:
        if not self.agent_jwt_secret:
            raise ConfigurationError(
                "AGENT_JWT_SECRET is empty: the backend verifies agent tokens with it.",
                {"variable": "AGENT_JWT_SECRET"},
            )
        usable = set(get_default_algorithms()) - {"none"}
        if self.agent_jwt_algorithm not in usable:
            raise ConfigurationError(
                "AGENT_JWT_ALGORITHM is not one that can be verified here; use one of "
                f"{', '.join(sorted(usable))} (others need the `cryptography` package).",
                {"variable": "AGENT_JWT_ALGORITHM"},
            )
        unknown = sorted(self.disabled_features - set(FEATURES))
        if unknown:
            raise ConfigurationError(
                f"Unknown feature to disable: {', '.join(unknown)}; the features are "
                f"{', '.join(FEATURES)}.",
                {"variable": "disabled_features"},
            )
        if self.events_kept < 1 or self.max_body_bytes < 1 or self.keepalive_seconds < 0:
            raise ConfigurationError(
                "events_kept and max_body_bytes must be at least 1 and keepalive_seconds at "
                "least 0."
            )

    def has(self, feature: str) -> bool:
        """Whether the feature is on: not switched off, and its token configured."""
        if feature in _INTERNAL_FEATURES and not self.internal_api_token:
            return False
        return feature not in self.disabled_features

    def capabilities(self) -> dict[str, object]:
        """The answer of ``GET /api/mission-control/capabilities`` (contract, Part 1)."""
        features = {name: self.has(name) for name in FEATURES}
        listed = [name for name, on in features.items() if on]
        if features["tools"]:
            listed += _TOOL_NAMES
        return {
            "contract_version": CONTRACT_VERSION,
            "features": features,
            "features_list": listed,
        }
