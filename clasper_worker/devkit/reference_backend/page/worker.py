"""The worker behind the page: its HTTP shim, called with the key that no browser sees."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx2

from clasper_worker.devkit.reference_backend.errors import ApiError
from clasper_worker.engine.http.client import open_http_client

_SECONDS = 10.0
# The shim sends a comment every 15 seconds: after this long a silent stream is dead.
_SILENCE_SECONDS = 60.0


@dataclass(slots=True)
class Worker:
    """Asks for turns and follows them.

    Args:
        url: of the shim; None where no worker is connected.
        key: of the shim, where it wants one.
        fresh_seconds: after which the shim is asked again whether it is ready.
    """

    url: str | None
    key: str | None = field(default=None, repr=False)
    fresh_seconds: float = 5.0
    _client: httpx2.AsyncClient | None = field(default=None, repr=False)
    _found: tuple[str | None, float] | None = None
    _looking: asyncio.Task[None] | None = None

    async def problem(self) -> str | None:
        """Why no turn can run now, for a person; None if one can.

        It takes the shim two seconds to ask its workers, so that nobody waits for that but the
        first: the last finding is returned, and looked up again in the background.
        """
        is_old = self._found is None or time.monotonic() - self._found[1] >= self.fresh_seconds
        if is_old and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look())
        if self._found is None and self._looking is not None:
            await asyncio.shield(self._looking)
        return self._found[0] if self._found else None

    async def _look(self) -> None:
        self._found = (await self._problem(), time.monotonic())

    async def _problem(self) -> str | None:
        if self.url is None:
            return "No worker is connected: AGENT_DAEMON_URL is not set. `clasper up` sets it."
        for path in ("/ready", "/health"):  # a shim of an earlier version has the second alone
            try:
                answer = await self._open().get(path, headers=self._headers())
            except httpx2.HTTPError:
                return f"No worker is connected: nothing answers at {self.url}."
            if answer.status_code == 404:
                continue
            if answer.status_code == 200:
                return None
            reason = _error_of(answer)["error"]
            return f"The worker cannot take turns now: {reason}"
        return f"No worker is connected: what answers at {self.url} is no shim."

    async def send(self, body: dict[str, Any]) -> dict[str, Any]:
        """Enqueue a turn; the shim's 202.

        Raises:
            ApiError: the shim's own refusal, or that it does not answer.
        """
        return await self._call("POST", "/api/agents/send", body)

    async def status(self, job_id: str) -> dict[str, Any]:
        """A job's status and result.

        Raises:
            ApiError: as `send`.
        """
        return await self._call("GET", _job(job_id))

    async def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a job.

        Raises:
            ApiError: as `send`.
        """
        return await self._call("DELETE", _job(job_id))

    async def follow(self, job_id: str, last_event_id: str | None) -> AsyncIterator[bytes]:
        """A job's events as the shim sends them, whole ones only; returns once they are opened.

        Raises:
            ApiError: as `send`.
        """
        headers = {**self._headers(), "Accept": "text/event-stream"}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        client = self._open()
        timeout = httpx2.Timeout(_SILENCE_SECONDS, connect=_SECONDS)
        request = client.build_request(
            "GET", f"{_job(job_id)}/events", headers=headers, timeout=timeout
        )
        try:
            answer = await client.send(request, stream=True)
        except httpx2.HTTPError as exc:
            raise _away() from exc
        if answer.status_code != 200:
            await answer.aread()
            raise _refusal(answer)
        return _whole_events(answer)

    async def close(self) -> None:
        """Close the connections."""
        if self._looking is not None:
            self._looking.cancel()
        if self._client is not None:
            await self._client.aclose()

    async def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        headers = self._headers()
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body).encode()
        try:
            answer = await self._open().request(method, path, headers=headers, content=content)
        except httpx2.HTTPError as exc:
            raise _away() from exc
        if not answer.is_success:
            raise _refusal(answer)
        found: dict[str, Any] = answer.json()
        return found

    def _headers(self) -> dict[str, str]:
        return {} if self.key is None else {"X-Agent-Daemon-Key": self.key}

    def _open(self) -> httpx2.AsyncClient:
        if self.url is None:
            raise ApiError(503, "No worker is connected.", code="no_worker")
        if self._client is None:
            self._client = open_http_client(_SECONDS, self.url)
        return self._client


def _job(job_id: str) -> str:
    return f"/api/jobs/{quote(job_id, safe='')}"


async def _whole_events(answer: httpx2.Response) -> AsyncIterator[bytes]:
    """What came up to the last blank line, so that what is added between stands between events."""
    pending = b""
    try:
        async for piece in answer.aiter_bytes():
            pending += piece
            end = max(pending.rfind(b"\n\n") + 2, pending.rfind(b"\r\n\r\n") + 4)
            if end > 3:
                yield pending[:end]
                pending = pending[end:]
    except httpx2.HTTPError:
        return  # the browser comes back and goes on after its last event
    finally:
        await answer.aclose()


def _away() -> ApiError:
    return ApiError(503, "The worker's HTTP shim does not answer.", code="worker_away")


def _refusal(answer: httpx2.Response) -> ApiError:
    parsed = _error_of(answer)
    if answer.status_code == 401:  # ours to fix, not the browser's
        return ApiError(
            502, "The shim refuses the key: set AGENT_DAEMON_API_KEY alike.", code="wrong_key"
        )
    return ApiError(answer.status_code, parsed["error"], code=parsed["code"])


def _error_of(answer: httpx2.Response) -> dict[str, str]:
    try:
        parsed = answer.json()
        return {
            "error": str(parsed.get("error") or parsed.get("status")),
            "code": str(parsed.get("code")),
        }
    except (ValueError, AttributeError):
        return {"error": f"the shim answered {answer.status_code}", "code": "shim_error"}
