"""The backend's endpoints under the internal token: dispatch, and who the agents are."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from clasper_worker.errors import (
    BackendAuthError,
    BackendError,
    BackendNotFoundError,
    BackendProtocolError,
    BackendRejectedError,
    ConfigurationError,
)
from clasper_worker.mission_control.models import Capabilities
from clasper_worker.mission_control.transport import BackendTransport, protocol_error
from clasper_worker.settings import Settings

_BASE = "/api/mission-control"
_UNDELIVERED = f"{_BASE}/dispatch/undelivered"
_CAPABILITIES_TTL_SECONDS = 60.0
_AGENTS_ON_A_PAGE = 200
_MAX_PAGES = 10_000


class InternalBackend:
    """One backend, for the jobs that act for no user in particular.

    Args:
        transport: sends the requests.
        token: ``INTERNAL_API_TOKEN``; without one every call fails.
        clock: monotonic seconds, for how long capabilities are remembered.
    """

    def __init__(
        self,
        transport: BackendTransport,
        token: str | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._token = token
        self._clock = clock
        self._method = "GET"
        self._features: tuple[Capabilities | None, float] | None = None

    @classmethod
    def from_settings(cls, settings: Settings, transport: BackendTransport) -> InternalBackend:
        """With the configured token."""
        token = settings.internal_api_token
        return cls(transport, token.get_secret_value() if token else None)

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
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            query: dict[str, str | int] = {"limit": _AGENTS_ON_A_PAGE}
            if cursor is not None:
                query["cursor"] = cursor
            page = await self._request("GET", endpoint, params=query)
            items = page.get("items")
            if not isinstance(items, list):
                raise protocol_error(f"GET {endpoint}", "items is not a list")
            for item in items:
                if isinstance(item, dict):
                    yield item
            following = page.get("next_cursor")
            if not isinstance(following, str) or not following or following == cursor:
                return
            cursor = following

    async def _ask_undelivered(self, limits: Mapping[str, int]) -> dict[str, Any]:
        body = limits if self._method == "POST" else None
        return await self._request(self._method, _UNDELIVERED, params=limits, body=body)

    async def _capabilities(self) -> Capabilities | None:
        try:
            data = await self._request("GET", f"{_BASE}/capabilities")
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
