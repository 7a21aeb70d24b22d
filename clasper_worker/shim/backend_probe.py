"""Asking the backend whether it is there, and what it offers: within a bounded time, once."""

from __future__ import annotations

import asyncio

import httpx2

from clasper_worker.config.settings import Settings
from clasper_worker.engine.http.client import open_http_client
from clasper_worker.engine.http.redirects import is_redirect
from clasper_worker.errors import BackendError, BackendNotFoundError, ConfigurationError
from clasper_worker.mission_control.agent_tokens import AgentIdentity, AgentTokens
from clasper_worker.mission_control.capabilities import ask_capabilities
from clasper_worker.mission_control.client import MissionControl
from clasper_worker.mission_control.models import Capabilities
from clasper_worker.mission_control.transport import CAPABILITIES_PATHS, BackendTransport

CONTRACT_VERSION = "v1"
SUPPORTED_VERSIONS = (CONTRACT_VERSION, "1.1.0")
"""Contract versions of backends; the second is how some write the first."""


async def backend_answers(settings: Settings, seconds: float) -> bool:
    """Whether the backend answers, be it that it wants a token."""
    if settings.backend_url is None:
        return False
    try:
        async with (
            asyncio.timeout(seconds),
            open_http_client(seconds, settings.backend_url) as http,
        ):
            answer = await http.get(f"{settings.backend_url}{CAPABILITIES_PATHS[0]}")
    except (httpx2.HTTPError, TimeoutError):
        return False
    # A redirect that is not followed fails every turn.
    return answer.status_code < 500 and not is_redirect(answer.status_code)


async def backend_capabilities(settings: Settings, seconds: float) -> Capabilities:
    """What the backend offers to an agent; one attempt.

    Raises:
        ConfigurationError: backend or secret are not configured.
        BackendError: it failed, or has no capabilities.
        TimeoutError: the time was up.
    """
    if settings.backend_url is None:
        raise ConfigurationError(
            "No BACKEND_URL is configured: set it to your backend's address",
            {"variable": "BACKEND_URL"},
        )
    tokens = AgentTokens.from_settings(settings)
    identity = AgentIdentity(settings.user_id or "clasper", settings.agent_role or "default")
    async with (
        asyncio.timeout(seconds),
        open_http_client(seconds, settings.backend_url) as http,
    ):
        control = MissionControl(BackendTransport(http, attempts=1), tokens)
        data = await ask_capabilities(lambda path: control.request(identity, "GET", path))
    return Capabilities.model_validate(data)


def problem_of(exc: Exception) -> str:
    """What to say of a backend that gave no capabilities."""
    if isinstance(exc, BackendNotFoundError):
        return f"The backend has no {CAPABILITIES_PATHS[0]}: the required endpoints are assumed"
    if isinstance(exc, BackendError | ConfigurationError):
        return str(exc)
    if isinstance(exc, TimeoutError):
        return "The backend did not answer in time: check BACKEND_URL"
    return "The backend's capabilities are not of the contract's form"
