"""Turns handed to the HTTP shim, for a dispatcher that runs apart from the broker."""

from __future__ import annotations

from collections.abc import Sequence

import httpx2

from clasper_worker.errors import ConfigurationError, StateUnavailableError
from clasper_worker.jobs.queue import Job
from clasper_worker.settings import Settings

_SECONDS = 30.0


class ShimQueue:
    """Posts turns to the shim, which enqueues them.

    Args:
        client: with the shim's address and key.
    """

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    @classmethod
    def from_settings(cls, settings: Settings) -> ShimQueue:
        """For the shim at ``AGENT_DAEMON_URL``.

        Raises:
            ConfigurationError: no address is configured.
        """
        if settings.agent_daemon_url is None:
            raise ConfigurationError(
                "No AGENT_DAEMON_URL is configured: set it to the shim's address, such as"
                " http://127.0.0.1:8081",
                {"variable": "AGENT_DAEMON_URL"},
            )
        keys = settings.daemon_api_keys
        headers = {"X-Agent-Daemon-Key": keys[0]} if keys else {}
        return cls(
            httpx2.AsyncClient(
                base_url=settings.agent_daemon_url, headers=headers, timeout=_SECONDS
            )
        )

    async def put(self, jobs: Sequence[Job]) -> None:
        """See `clasper_worker.jobs.queue.JobQueue.put`. What the shim finds invalid is left out.

        Raises:
            StateUnavailableError: the shim does not answer, or not well.
        """
        for job in jobs:
            try:
                answer = await self._client.post("/api/agents/send", json=dict(job.arguments))
            except httpx2.HTTPError as exc:
                raise StateUnavailableError(
                    f"The shim does not answer ({type(exc).__name__}): check AGENT_DAEMON_URL"
                ) from exc
            if answer.status_code >= 300 and answer.status_code not in {400, 422}:
                raise StateUnavailableError(
                    f"The shim answered {answer.status_code}: check AGENT_DAEMON_API_KEY",
                    {"status": answer.status_code},
                )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
