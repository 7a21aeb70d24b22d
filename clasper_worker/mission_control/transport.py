"""HTTP to the backend: retries, and every failure as one of our errors.

Transient failures (429, 5xx, timeouts, lost connections) are retried with exponential backoff and
jitter; while the backend is down or limits our rate, requests wait at its gate instead. Trying
again is safe for POSTs too: each carries an idempotency key, and the very same bytes are sent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol

import aiohttp
import httpx2
import structlog

from clasper_worker.engine.circuit.calls import (
    NO_ANSWER,
    NOTHING,
    WORKS,
    Pace,
    Verdict,
    call_persistently,
    patience_for,
    spared,
    verdict_on_status,
)
from clasper_worker.engine.circuit.gate import HostGate
from clasper_worker.engine.circuit.policy import GateClosedError
from clasper_worker.engine.circuit.retry_after import retry_after
from clasper_worker.engine.http.client import LeanClient
from clasper_worker.engine.http.redirects import is_redirect, told
from clasper_worker.engine.http.transport import MAX_ANSWER_BYTES, Answer, AnswerTooLargeError
from clasper_worker.errors import (
    BackendAuthError,
    BackendConflictError,
    BackendError,
    BackendMovedError,
    BackendNotFoundError,
    BackendProtocolError,
    BackendRejectedError,
    BackendUnavailableError,
)
from clasper_worker.text.large_json import has_too_many_values
from clasper_worker.text.whole_text import json_of, whole

Confirm = Callable[[], Awaitable[None]]
"""Makes sure that a request may still be made, and raises where it may not."""

log = structlog.get_logger(__name__)

# What is asked for only where the backend says that it has the feature.
_FEATURES = {
    "GET /messages": "history",
    "GET /notifications": "notifications",
    "POST /heartbeat": "heartbeat",
    "POST /standup": "standup",
    "GET /agents": "agents",
}
_MAX_ERROR_BYTES = 64 * 1024

_TRANSIENT_STATUSES = frozenset({408, 425, 429})
_SECOND_OPINION_SECONDS = 3.0

CAPABILITIES_PATHS = ("/api/mission-control/capabilities", "/api/capabilities")
"""Where a backend says what it offers; the original's clients ask at the second."""


class _Transient(Exception):  # noqa: N818 - a signal to the retry loop, never seen outside
    """One attempt failed in a way that another may not."""

    def __init__(self, error: BackendUnavailableError, verdict: Verdict) -> None:
        super().__init__(str(error))
        self.error = error
        self.verdict = verdict


def _judge(exc: Exception) -> Verdict:
    """What an error tells of the backend: any refusal tells that it works."""
    if isinstance(exc, _Transient):
        return exc.verdict
    return WORKS if isinstance(exc, BackendError) else NOTHING


# In all, over some 3 s: longer failures are the gate's to wait out.
ATTEMPTS = 5


class BackendTransport:
    """Sends requests to one backend.

    Args:
        client: has the base URL, timeouts and connection limits; a `LeanClient` is the quickest.
        attempts: how often a request is tried in all, those aside that fail of an outage or rate
            limit which the gate knows of.
        max_wait_seconds: the longest pause between two attempts.
        gate: the backend's; None sends every request at once.
    """

    def __init__(
        self,
        client: httpx2.AsyncClient,
        *,
        attempts: int = ATTEMPTS,
        max_wait_seconds: float = 10.0,
        gate: HostGate | None = None,
    ) -> None:
        self._fetch: _Fetch = (
            client.fetch if isinstance(client, LeanClient) else partial(_by_httpx2, client)
        )
        self._gate = gate
        self._pace = Pace(attempts, first_pause=0.2, longest_pause=max_wait_seconds, to="backend")
        self._warned: set[str] = set()
        self._looking: asyncio.Future[bool] | None = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Callable[[], Mapping[str, str]],
        params: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        confirm: Confirm | None = None,
        alone: bool = False,
        who: str = "",
    ) -> dict[str, Any]:
        """Send one request and return its JSON object.

        Args:
            method: of HTTP.
            path: below the backend's base URL.
            headers: gives them anew for each try: a token may expire while a request waits.
            params: the query.
            body: sent as JSON.
            confirm: called right before each try; what it raises ends the request.
            alone: whether a 5xx may be this endpoint's own trouble, for which no others wait.
            who: on whose behalf: a request that the backend fails at for one user, while it works
                for others, holds nobody else up.

        Raises:
            BackendError: one of its subclasses, by what the backend answered.
        """
        content = None
        if body is not None:
            text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
            content = whole(text).encode()

        async def send() -> dict[str, Any]:
            sent_headers = dict(headers())
            if content is not None:
                sent_headers["Content-Type"] = "application/json"
            try:
                return await self._send(method, path, sent_headers, params, content, confirm, alone)
            except _Transient as exc:
                if exc.verdict.outcome.failed and not exc.verdict.outcome.alone:
                    await self._weigh(exc, path, sent_headers, who)
                raise

        patience = patience_for(self._gate, who)
        try:
            return await call_persistently(self._gate, patience, send, _judge, self._pace)
        except _Transient as exc:
            raise exc.error from exc.__cause__
        except GateClosedError as exc:
            if isinstance(exc.__cause__, _Transient):
                raise exc.__cause__.error from exc
            raise _unavailable(f"{method} {path}", "has been unavailable for too long") from exc

    async def _weigh(
        self, failure: _Transient, path: str, headers: Mapping[str, str], who: str
    ) -> None:
        """Before one user's failures open the circuit for all, see whether the backend works."""
        gate = self._gate
        if gate is None or not who or path in CAPABILITIES_PATHS:
            return
        if not gate.is_accused_by_one(who):
            return
        if isinstance(failure.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout):
            return  # it was not the request
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._works(headers))
        # Shared by all requests that fail at this moment, and not ended with the turn of one.
        if await asyncio.shield(self._looking):
            failure.verdict = spared(failure.verdict)
            log.warning("backend.fails_for_one_user", path=path)

    async def _works(self, headers: Mapping[str, str]) -> bool:
        try:
            async with asyncio.timeout(_SECOND_OPINION_SECONDS):
                answer = await self._fetch(
                    "GET", CAPABILITIES_PATHS[0], headers=headers, params=None, content=None
                )
        except (httpx2.RequestError, aiohttp.ClientError, httpx2.InvalidURL, TimeoutError):
            return False
        return answer.status < 500 and answer.status not in _TRANSIENT_STATUSES

    async def _send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        params: Mapping[str, str | int] | None,
        content: bytes | None,
        confirm: Confirm | None,
        alone: bool,
    ) -> dict[str, Any]:
        endpoint = f"{method} {path}"
        if confirm is not None:
            await confirm()
        try:
            answer = await self._fetch(
                method, path, headers=headers, params=params, content=content
            )
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as exc:
            # The openai package's aiohttp transport reports a refusal as a connect timeout.
            raise _Transient(_unavailable(endpoint, "could not be reached"), NO_ANSWER) from exc
        except httpx2.TimeoutException as exc:
            raise _Transient(_unavailable(endpoint, "did not answer in time"), NO_ANSWER) from exc
        except AnswerTooLargeError as exc:
            megabytes = MAX_ANSWER_BYTES // 2**20
            raise protocol_error(
                endpoint, f"its body has more than {megabytes} MiB; give pages of fewer items"
            ) from exc
        except httpx2.DecodingError as exc:
            raise protocol_error(endpoint, "its body is not compressed as it says") from exc
        except (httpx2.RequestError, aiohttp.ClientError) as exc:
            # aiohttp carries the bytes, and a broken status line comes up as its own error.
            raise _Transient(
                _unavailable(endpoint, "did not keep the connection"), NO_ANSWER
            ) from exc
        except httpx2.InvalidURL as exc:
            raise BackendError("BACKEND_URL is not a usable address", _where(endpoint)) from exc
        self._note_deprecation(endpoint, answer)
        if 200 <= answer.status < 300:
            return _json_object(endpoint, answer)
        if is_redirect(answer.status):
            raise _moved(endpoint, method, answer)
        raise _refusal(endpoint, answer, alone=alone)

    def _note_deprecation(self, endpoint: str, answer: Answer) -> None:
        warning = answer.headers.get("warning")
        if warning and endpoint not in self._warned:
            self._warned.add(endpoint)
            log.warning("backend.deprecated_endpoint", endpoint=endpoint, warning=warning[:200])


class _Fetch(Protocol):
    """Makes one request and reads the answer; see `LeanClient.fetch`."""

    async def __call__(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str | int] | None,
        content: bytes | None,
    ) -> Answer: ...


async def _by_httpx2(client: httpx2.AsyncClient, method: str, path: str, **rest: Any) -> Answer:
    """The same by any of httpx2's clients: behind a proxy, or in a test."""
    response = await client.request(method, path, follow_redirects=False, **rest)
    if len(response.content) > MAX_ANSWER_BYTES:
        raise AnswerTooLargeError("the answer is too large")
    return Answer(response.status_code, response.headers, response.content, str(response.url))


def _where(endpoint: str, status: int | None = None) -> dict[str, Any]:
    return {"endpoint": endpoint} if status is None else {"endpoint": endpoint, "status": status}


def _unavailable(endpoint: str, what: str, status: int | None = None) -> BackendUnavailableError:
    hint = "" if status is not None else ": check BACKEND_URL"
    return BackendUnavailableError(
        f"The backend {what} ({endpoint}){hint}", _where(endpoint, status)
    )


def _json_object(endpoint: str, answer: Answer) -> dict[str, Any]:
    if not answer.body:
        return {}
    if has_too_many_values(answer.body):
        raise protocol_error(endpoint, "it is too large to be read at once; give smaller pages")
    try:
        data = json_of(answer.body)
    except (ValueError, RecursionError) as exc:
        kind = answer.headers.get("content-type") or "none"
        shown = kind.encode("ascii", "replace").decode()[:80]
        raise protocol_error(endpoint, f"its body is not JSON (content type: {shown})") from exc
    if not isinstance(data, dict):
        raise protocol_error(endpoint, "its body is not a JSON object")
    return data


def _moved(endpoint: str, method: str, answer: Answer) -> BackendMovedError:
    does = told(method, answer.url, answer.status, answer.headers.get("location"))
    return BackendMovedError(
        f"The backend {does} ({endpoint}): set BACKEND_URL to the address where it answers itself",
        {**_where(endpoint, answer.status), "variable": "BACKEND_URL"},
    )


def protocol_error(endpoint: str, problem: str) -> BackendProtocolError:
    """The error for an answer that breaks the contract; ``problem`` says how."""
    return BackendProtocolError(
        f"The backend's answer to {endpoint} is not the contract's: {problem}", _where(endpoint)
    )


def _refusal(endpoint: str, answer: Answer, *, alone: bool) -> Exception:
    status = answer.status
    where = _where(endpoint, status)
    code = _error_code(answer.body)
    if code:
        where["backend_code"] = code
    if status == 401:
        is_internal = "/dispatch/" in endpoint or endpoint.endswith("/agents")
        variable = "INTERNAL_API_TOKEN" if is_internal else "AGENT_JWT_SECRET"
        return BackendAuthError(
            f"The backend answered 401 to {endpoint}: set {variable} to the value that the"
            " backend uses",
            {**where, "variable": variable},
        )
    if status == 404:
        feature = _FEATURES.get(endpoint.replace("/api/mission-control", ""))
        fix = f": offer it, or leave {feature} out of the features of capabilities"
        return BackendNotFoundError(
            f"The backend has no such thing (404 to {endpoint}){fix if feature else ''}", where
        )
    if status == 409:
        return BackendConflictError(
            f"The backend saw this idempotency key with another request (409 to {endpoint})", where
        )
    if status in _TRANSIENT_STATUSES or status >= 500:
        return _Transient(
            _unavailable(endpoint, f"answered {status}", status),
            verdict_on_status(status, retry_after(answer.headers), passing=True, alone=alone),
        )
    return BackendRejectedError(
        f"The backend refused {endpoint} with {status}{f' ({code})' if code else ''}", where
    )


def _error_code(body: bytes) -> str | None:
    """The contract's optional error ``code``; the error's text may quote people's words."""
    if len(body) > _MAX_ERROR_BYTES:
        return None
    try:
        code = json_of(body)["code"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return code[:64] if isinstance(code, str) else None
