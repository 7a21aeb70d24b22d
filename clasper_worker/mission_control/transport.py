"""HTTP to the backend: retries, and every failure as one of our errors.

Transient failures (429, 5xx, timeouts, lost connections) are retried with exponential backoff and
jitter, or after the ``Retry-After`` that the backend names. That is safe for POSTs too: each
carries an idempotency key, and the very same bytes are sent again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import aiohttp
import httpx2
import stamina
import structlog

from clasper_worker.errors import (
    BackendAuthError,
    BackendConflictError,
    BackendError,
    BackendNotFoundError,
    BackendProtocolError,
    BackendRejectedError,
    BackendUnavailableError,
)
from clasper_worker.retry_after import parse_retry_after

log = structlog.get_logger(__name__)

_MAX_RETRY_AFTER_SECONDS = 60.0
_TRANSIENT_STATUSES = frozenset({408, 425, 429})


class _Transient(Exception):  # noqa: N818 - a signal to the retry loop, never seen outside
    """One attempt failed in a way that another may not."""

    def __init__(self, error: BackendUnavailableError, retry_after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after


def _backoff(exc: Exception) -> bool | float:
    if not isinstance(exc, _Transient):
        return False
    return True if exc.retry_after is None else exc.retry_after


class BackendTransport:
    """Sends requests to one backend.

    Args:
        client: has the base URL, timeouts and connection limits.
        attempts: how often a request is tried in all.
        max_wait_seconds: the longest pause between two attempts without ``Retry-After``.
    """

    def __init__(
        self, client: httpx2.AsyncClient, *, attempts: int = 5, max_wait_seconds: float = 10.0
    ) -> None:
        self._client = client
        self._attempts = attempts
        self._max_wait = max_wait_seconds
        self._warned: set[str] = set()

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Send one request and return its JSON object.

        Raises:
            BackendError: one of its subclasses, by what the backend answered.
        """
        content = None
        sent_headers = dict(headers)
        if body is not None:
            content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
            sent_headers["Content-Type"] = "application/json"
        try:
            return await self._attempt(method, path, sent_headers, params, content)
        except _Transient as first:
            if self._attempts == 1:
                raise first.error from first.__cause__
            failure = first
        # The first attempt is made outside of the retry machinery: it nearly always succeeds.
        try:
            async for attempt in stamina.retry_context(
                on=_backoff,
                attempts=self._attempts,
                timeout=None,
                wait_initial=0.2,
                wait_max=self._max_wait,
                wait_jitter=0.5,
            ):
                with attempt:
                    if attempt.num == 1:
                        raise failure  # already made; the machinery only waits for it
                    return await self._attempt(method, path, sent_headers, params, content)
        except _Transient as last:
            raise last.error from last.__cause__
        raise AssertionError("the retry loop returns or raises")

    async def _attempt(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        params: Mapping[str, str | int] | None,
        content: bytes | None,
    ) -> dict[str, Any]:
        endpoint = f"{method} {path}"
        try:
            response = await self._client.request(
                method, path, headers=headers, params=params, content=content
            )
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as exc:
            # The aiohttp transport reports a refused connection as a connect timeout.
            raise _Transient(_unavailable(endpoint, "could not be reached")) from exc
        except httpx2.TimeoutException as exc:
            raise _Transient(_unavailable(endpoint, "did not answer in time")) from exc
        except (httpx2.RequestError, aiohttp.ClientError) as exc:
            # aiohttp carries the bytes, and a broken status line comes up as its own error.
            raise _Transient(_unavailable(endpoint, "did not keep the connection")) from exc
        except httpx2.InvalidURL as exc:
            raise BackendError("BACKEND_URL is not a usable address", _where(endpoint)) from exc
        self._note_deprecation(endpoint, response)
        if response.is_success:
            return _json_object(endpoint, response)
        raise _refusal(endpoint, response)

    def _note_deprecation(self, endpoint: str, response: httpx2.Response) -> None:
        warning = response.headers.get("warning")
        if warning and endpoint not in self._warned:
            self._warned.add(endpoint)
            log.warning("backend.deprecated_endpoint", endpoint=endpoint, warning=warning[:200])


def _where(endpoint: str, status: int | None = None) -> dict[str, Any]:
    return {"endpoint": endpoint} if status is None else {"endpoint": endpoint, "status": status}


def _unavailable(endpoint: str, what: str, status: int | None = None) -> BackendUnavailableError:
    hint = "" if status is not None else ": check BACKEND_URL"
    return BackendUnavailableError(
        f"The backend {what} ({endpoint}){hint}", _where(endpoint, status)
    )


def _json_object(endpoint: str, response: httpx2.Response) -> dict[str, Any]:
    if not response.content:
        return {}
    try:
        data = json.loads(response.content)
    except ValueError as exc:
        raise protocol_error(endpoint, "its body is not JSON") from exc
    if not isinstance(data, dict):
        raise protocol_error(endpoint, "its body is not a JSON object")
    return data


def protocol_error(endpoint: str, problem: str) -> BackendProtocolError:
    """The error for an answer that breaks the contract; ``problem`` says how."""
    return BackendProtocolError(
        f"The backend's answer to {endpoint} is not the contract's: {problem}", _where(endpoint)
    )


def _refusal(endpoint: str, response: httpx2.Response) -> Exception:
    status = response.status_code
    where = _where(endpoint, status)
    code = _error_code(response)
    if code:
        where["backend_code"] = code
    if status == 401:
        variable = "INTERNAL_API_TOKEN" if "/dispatch/" in endpoint else "AGENT_JWT_SECRET"
        return BackendAuthError(
            f"The backend answered 401 to {endpoint}: set {variable} to the value that the"
            " backend uses",
            {**where, "variable": variable},
        )
    if status == 404:
        return BackendNotFoundError(f"The backend has no such thing (404 to {endpoint})", where)
    if status == 409:
        return BackendConflictError(
            f"The backend saw this idempotency key with another request (409 to {endpoint})", where
        )
    if status in _TRANSIENT_STATUSES or status >= 500:
        return _Transient(
            _unavailable(endpoint, f"answered {status}", status), _retry_after(response)
        )
    return BackendRejectedError(
        f"The backend refused {endpoint} with {status}{f' ({code})' if code else ''}", where
    )


def _error_code(response: httpx2.Response) -> str | None:
    """The contract's optional error ``code``; the error's text may quote people's words."""
    try:
        code = json.loads(response.content)["code"]
    except (ValueError, LookupError, TypeError):
        return None
    return code[:64] if isinstance(code, str) else None


def _retry_after(response: httpx2.Response) -> float | None:
    seconds = parse_retry_after(response.headers.get("retry-after"))
    return None if seconds is None else min(seconds, _MAX_RETRY_AFTER_SECONDS)
