"""How jobs enqueue others, without blocking the event loop."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx2
import structlog

from clasper_worker.client import ClasperClient
from clasper_worker.config.settings import Settings
from clasper_worker.engine.http.redirects import is_loopback, is_redirect, told
from clasper_worker.engine.pool.threads import ThreadCrew
from clasper_worker.engine.queue.headers import NOTIFICATION_HEADER
from clasper_worker.errors import ClasperError, ConfigurationError, StateUnavailableError
from clasper_worker.observability import metrics
from clasper_worker.periodic.notes import Notes
from clasper_worker.periodic.notification import (
    INTERNAL_REFUSED,
    MARK_HEADER,
    NotificationKey,
    left_alone_for,
    notification_of,
)


@dataclass(frozen=True, slots=True)
class Job:
    """A Celery task to enqueue.

    Attributes:
        task: its name.
        arguments: its keyword arguments.
        queue: where to.
        job_id: its id; a new one where None.
        keeps_result: whether anybody may ask for its result.
        mark: which notification it answers, or why it answers none (`periodic.notification`).
    """

    task: str
    arguments: Mapping[str, Any] = field(repr=False)
    queue: str
    job_id: str | None = None
    keeps_result: bool = True
    mark: Mapping[str, Any] | None = None


class JobQueue(Protocol):
    """Enqueues jobs."""

    async def put(self, jobs: Sequence[Job]) -> None:
        """Enqueue the jobs in this order.

        Raises:
            StateUnavailableError: the broker does not take them; some may have been.
        """
        ...


class CeleryQueue:
    """Enqueues on the broker, from a thread.

    Args:
        client: for the broker.
    """

    def __init__(self, client: ClasperClient) -> None:
        self._client = client
        self._crew = ThreadCrew("clasper-jobs", 2)

    async def put(self, jobs: Sequence[Job]) -> None:
        """See `JobQueue.put`."""
        if jobs:
            await self._crew.call(self._put, jobs)

    def close(self) -> None:
        """Let what is being enqueued be enqueued, for a moment, and close the connections."""
        self._crew.close(0.5)
        self._client.close()

    def _put(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._client.submit(
                job.task,
                job.arguments,
                job_id=job.job_id,
                queue=job.queue,
                keeps_result=job.keeps_result,
                headers={NOTIFICATION_HEADER: job.mark} if job.mark else {},
            )


_SECONDS = 30.0
_AT_ONCE = 16  # sessions whose turns are on their way to the shim
_LOOKED_AFTER = 100  # turns that are asked after between two polls
_KEY_REFUSED = frozenset({401, 403})
_LATER = frozenset({408, 425, 429})
log = structlog.get_logger(__name__)


class ShimQueue:
    """Posts turns to the shim, which enqueues them, and asks it what became of them.

    Args:
        client: with the shim's address and key.
    """

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client
        self._under_way: dict[str, NotificationKey] = {}  # by job

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
        if settings.internal_api_token is not None:
            headers["X-Internal-Token"] = settings.internal_api_token.get_secret_value()
        return cls(
            httpx2.AsyncClient(
                base_url=settings.agent_daemon_url,
                headers=headers,
                timeout=_SECONDS,
                follow_redirects=False,
                trust_env=not is_loopback(urlsplit(settings.agent_daemon_url).hostname),
            )
        )

    async def put(self, jobs: Sequence[Job]) -> None:
        """See `JobQueue.put` of `clasper_worker.periodic.enqueue`; each session keeps its order.

        What the shim refuses for its content is logged with the reason, and left out.

        Raises:
            ConfigurationError: the shim does not accept our key.
            StateUnavailableError: the shim does not answer, or not well.
        """
        sessions: defaultdict[str, list[Job]] = defaultdict(list)
        for job in jobs:
            sessions[_session(job.arguments)].append(job)
        places = asyncio.Semaphore(_AT_ONCE)

        async def in_order(of_session: Sequence[Job]) -> None:
            async with places:
                for job in of_session:
                    await self._post(job)

        ends = await asyncio.gather(*map(in_order, sessions.values()), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    async def look_after(self, notes: Notes) -> None:
        """Note of turns that have failed how long their notifications are left alone.

        Workers, who note that for dispatchers on the broker, cannot do so for this one. To be
        called between polls; looks at some turns each time.

        Raises:
            StateUnavailableError: the shim does not answer.
        """
        for job_id, key in list(islice(self._under_way.items(), _LOOKED_AFTER)):
            answer = await self._call("GET", f"/api/jobs/{job_id}")
            del self._under_way[job_id]
            status = _object(answer)
            if answer.status_code >= 500 or status.get("status") in {"queued", "running"}:
                self._under_way[job_id] = key  # behind the others
            error = status.get("error")
            if status.get("status") != "failed" or not isinstance(error, Mapping):
                continue
            if (error.get("details") or {}).get("posted"):
                continue  # there is a reply, which the worker acknowledges
            seconds = left_alone_for(is_transient=_is_transient(error.get("code")))
            log.warning("dispatch.turn_failed", error=error.get("code"), again_in=seconds)
            metrics.count("notification", "failed")
            await notes.write([key.note], "failed", seconds)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _post(self, job: Job) -> None:
        key = notification_of(job.mark, job.arguments)
        headers = {MARK_HEADER: json.dumps(job.mark)} if job.mark else {}
        answer = await self._call(
            "POST", "/api/agents/send", json=dict(job.arguments), headers=headers
        )
        status, body = answer.status_code, _object(answer)
        if status < 300:
            job_id = body.get("job_id")
            if key is not None and isinstance(job_id, str):
                self._under_way[job_id] = key
            return
        if status in _KEY_REFUSED:
            raise ConfigurationError(
                f"The shim answered {status}: {body.get('error') or 'check AGENT_DAEMON_API_KEY'}",
                {"variable": _refused_variable(body), "status": status},
            )
        if not 400 <= status < 500 or status in _LATER:
            raise StateUnavailableError(f"The shim answered {status}", {"status": status})
        log.warning(
            "dispatch.refused",
            notification_id=key and key.notification_id,
            http_status=status,
            reason=body.get("error"),
        )

    async def _call(self, method: str, path: str, **how: Any) -> httpx2.Response:
        try:
            answer = await self._client.request(method, path, follow_redirects=False, **how)
        except httpx2.HTTPError as exc:
            raise StateUnavailableError(
                f"The shim does not answer ({type(exc).__name__}): check AGENT_DAEMON_URL"
            ) from exc
        refuse_redirect(answer)
        return answer


def refuse_redirect(answer: httpx2.Response) -> None:
    """Take an answer that leads elsewhere for what it is: not the shim's.

    Raises:
        ConfigurationError: it is a redirect; says where to.
    """
    if not is_redirect(answer.status_code):
        return
    method, url = answer.request.method, str(answer.request.url)
    does = told(method, url, answer.status_code, answer.headers.get("location"))
    raise ConfigurationError(
        f"AGENT_DAEMON_URL {does}: set it to the shim's own address",
        {"variable": "AGENT_DAEMON_URL", "status": answer.status_code},
    )


def _refused_variable(body: Mapping[str, Any]) -> str:
    refused = body.get("code") == INTERNAL_REFUSED
    return "INTERNAL_API_TOKEN" if refused else "AGENT_DAEMON_API_KEY"


def _session(arguments: Mapping[str, Any]) -> str:
    return repr([arguments.get(name) for name in ("user_id", "session_key", "agent_role")])


def _object(answer: httpx2.Response) -> Mapping[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, Mapping) else {}


def _is_transient(code: object) -> bool:
    """Whether an error of this code may pass by itself."""
    kinds = [ClasperError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return any(kind.transient for kind in kinds if kind.code == code)
