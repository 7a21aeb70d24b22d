"""The backend's endpoints under the internal token: dispatch, and who the agents are."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from clasper_worker.config.settings import Settings
from clasper_worker.errors import (
    BackendAuthError,
    BackendError,
    BackendNotFoundError,
    BackendProtocolError,
    BackendRejectedError,
    ConfigurationError,
)
from clasper_worker.mission_control.agent_tokens import AgentIdentity, AgentTokens
from clasper_worker.mission_control.capabilities import ask_capabilities
from clasper_worker.mission_control.models import Capabilities, Page
from clasper_worker.mission_control.paging import Rows, pages, read
from clasper_worker.mission_control.transport import BackendTransport, protocol_error

_BASE = "/api/mission-control"
_UNDELIVERED = f"{_BASE}/dispatch/undelivered"
_CAPABILITIES_TTL_SECONDS = 60.0
_NOBODY = "clasper"
_AGENTS_ON_A_PAGE = 100  # as many as a backend has to take


class InternalBackend:
    """One backend, for the jobs that act for no user in particular.

    Args:
        transport: sends the requests.
        token: ``INTERNAL_API_TOKEN``; without one every call fails.
        agent: makes the headers of an agent, to ask for capabilities with where the backend gives
            them to agents alone; None asks with the internal token only.
        clock: monotonic seconds, for how long capabilities are remembered.
    """

    def __init__(
        self,
        transport: BackendTransport,
        token: str | None,
        *,
        agent: Callable[[], Mapping[str, str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._token = token
        self._agent = agent
        self._clock = clock
        self._method = "GET"
        self._features: tuple[Capabilities | None, float] | None = None

    @classmethod
    def from_settings(cls, settings: Settings, transport: BackendTransport) -> InternalBackend:
        """With the configured tokens."""
        token = settings.internal_api_token
        agent: Callable[[], Mapping[str, str]] | None = None
        if settings.agent_jwt_secret is not None:
            tokens = AgentTokens.from_settings(settings)
            # For no user in particular: what a backend offers is the same for all of them.
            identity = AgentIdentity(settings.user_id or _NOBODY, settings.agent_role or _NOBODY)

            def agent() -> Mapping[str, str]:
                return {"X-Agent-Token": tokens.token_for(identity)}

        return cls(transport, token.get_secret_value() if token else None, agent=agent)

    @property
    def has_token(self) -> bool:
        """Whether calls can be made at all."""
        return self._token is not None

    async def has(self, feature: str) -> bool | None:
        """Whether the backend offers a feature; None where it does not tell us."""
        if self._features is None or self._features[1] <= self._clock():
            self._features = (await self._capabilities(), self._clock() + _CAPABILITIES_TTL_SECONDS)
        found = self._features[0]
        return None if found is None else found.has(feature)

    async def undelivered(self, *, users: int, notifications: int) -> tuple[Any, ...]:
        """Undelivered notifications as the backend gives them, each user's oldest first.

        Asked by GET, or by POST where the backend wants that.

        Args:
            users: how many users at most.
            notifications: how many of each at most.

        Raises:
            BackendNotFoundError: the backend has no such endpoint.
            BackendError: by what it answered.
        """
        limits = {"limit_users": users, "limit_notifications": notifications}
        try:
            data = await self._ask_undelivered(limits)
        except BackendError as exc:
            if not _is_no_such_endpoint(exc):
                raise
            self._method = "POST" if self._method == "GET" else "GET"
            try:
                data = await self._ask_undelivered(limits)
            except BackendRejectedError as second:
                if _is_no_such_endpoint(second):
                    raise exc from None
                raise
        deliveries = data.get("deliveries")
        if deliveries is None and "deliveries" in data:  # as some languages write an empty list
            return ()
        if not isinstance(deliveries, list):
            raise protocol_error(f"{self._method} {_UNDELIVERED}", "deliveries is not a list")
        return tuple(deliveries)

    async def deliver(self, notification_id: str, user_id: str) -> None:
        """Acknowledge one delivery; a second time changes nothing.

        Raises:
            BackendError: by what the backend answered.
        """
        path = f"{_BASE}/dispatch/notifications/{quote(notification_id, safe='')}/deliver"
        # Nobody waits for it, and it is tried again for long: if only this endpoint fails, turns
        # must not stand still for it.
        with suppress(BackendProtocolError):  # it took it, and says so without JSON
            await self._request("POST", path, params={"user_id": user_id}, alone=True)

    async def agents(self) -> AsyncIterator[Mapping[str, Any]]:
        """All registered agents, page by page (feature ``agents``)."""
        endpoint = f"{_BASE}/agents"

        async def page_at(cursor: str | None) -> Page:
            query: dict[str, str | int] = {"limit": _AGENTS_ON_A_PAGE}
            if cursor is not None:
                query["cursor"] = cursor
            return read(Page, await self._request("GET", endpoint, params=query), f"GET {endpoint}")

        rows = Rows(f"GET {endpoint}")
        async for page in pages(page_at, f"GET {endpoint}"):
            for item in page.items:
                if isinstance(item, dict):
                    yield item
                else:
                    rows.skip(f"is {type(item).__name__}, not an object")

    async def _ask_undelivered(self, limits: Mapping[str, int]) -> dict[str, Any]:
        body = limits if self._method == "POST" else None
        return await self._request(self._method, _UNDELIVERED, params=limits, body=body)

    async def _capabilities(self) -> Capabilities | None:
        try:
            try:
                data = await ask_capabilities(lambda path: self._request("GET", path))
            except (BackendAuthError, BackendRejectedError):
                if self._agent is None:
                    raise
                agent = self._agent
                data = await ask_capabilities(
                    lambda path: self._transport.request("GET", path, headers=agent)
                )
            return Capabilities.model_validate(data)
        except (BackendNotFoundError, BackendAuthError, BackendRejectedError, ValidationError):
            return None

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        alone: bool = False,
    ) -> dict[str, Any]:
        if self._token is None:
            raise ConfigurationError(
                "No INTERNAL_API_TOKEN is configured: set it to the value that your backend"
                " expects in X-Internal-Token",
                {"variable": "INTERNAL_API_TOKEN"},
            )
        token = self._token
        return await self._transport.request(
            method,
            path,
            headers=lambda: {"X-Internal-Token": token},
            params=params,
            body=body,
            alone=alone,
        )


def _is_no_such_endpoint(exc: BackendError) -> bool:
    return isinstance(exc, BackendNotFoundError) or exc.details.get("status") == 405
