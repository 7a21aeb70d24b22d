"""Enqueue turns from Python without loading the worker.

A backend that has a Celery app of its own needs none of this: ``app.send_task("clasper.send",
kwargs={...}, queue="clasper")`` is all there is to it. The client adds a check of the request
before it is sent, keeps the message's text out of the sender's own Celery events, and says in a
header whose turn it is, so that the scheduler need not read the body.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from celery.result import AsyncResult

from clasper_worker.config.names import SEND_TASK, TURN_QUEUE
from clasper_worker.config.settings import Settings
from clasper_worker.engine.queue.identity import turn_id_for
from clasper_worker.engine.queue.message import route_header
from clasper_worker.engine.queue.scheduler import SCHEDULED, open_schedule
from clasper_worker.engine.redis.connections import CheckedCelery, options_for_celery
from clasper_worker.engine.redis.faults import RedisFault, redis_fault, typed_error
from clasper_worker.engine.redis.scripts import redis_client
from clasper_worker.errors import StateUnavailableError
from clasper_worker.observability.redaction import redacted
from clasper_worker.observability.trace_context import TRACEPARENT, current_trace
from clasper_worker.streams.reader import Places, StreamReader
from clasper_worker.streams.results import JobResults
from clasper_worker.streams.turn_stream import TurnStream
from clasper_worker.turn.admission import Admission
from clasper_worker.turn.request import SendRequest

_REFUSED_SECONDS = 3.0  # that a failover takes, or a script; whoever enqueues waits for an answer
_FIRST_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class EnqueuedTurn:
    """A turn on the queue.

    Attributes:
        job_id: the Celery task's id.
        turn_id: the turn's id; the same for every job of one idempotency key.
        result: Celery's handle on the outcome.
    """

    job_id: str
    turn_id: str
    result: AsyncResult


class ClasperClient:
    """Enqueues turns on a broker.

    Args:
        broker_url: as the workers' ``CELERY_BROKER_URL``.
        result_backend: as theirs.
        admission: what is checked before a turn is enqueued; with `default_task`, turns need not
            name one.
        broker_options: Celery's ``broker_transport_options``, such as ``master_name`` where the
            broker is a Redis behind Sentinels.
        result_options: its ``result_backend_transport_options``.
        redis_url: as the workers' ``CLASPER_REDIS_URL``, for `stream`; the broker where it is None.
    """

    def __init__(
        self,
        broker_url: str,
        result_backend: str,
        *,
        admission: Admission | None = None,
        broker_options: Mapping[str, Any] | None = None,
        result_options: Mapping[str, Any] | None = None,
        redis_url: str | None = None,
    ) -> None:
        self.app = CheckedCelery(
            "clasper_client", broker=broker_url, backend=result_backend, set_as_current=False
        )
        # Sends without a result backend: Celery's would subscribe to each result before it
        # sends, a connection and a subscription for nothing where nobody waits in this process.
        self._sender = CheckedCelery("clasper_sender", broker=broker_url, set_as_current=False)
        # RabbitMQ then says that it has a message, before the caller is told so.
        confirmed = {} if broker_url.startswith(SCHEDULED) else {"confirm_publish": True}
        for app in (self.app, self._sender):
            app.conf.update(
                task_serializer="json",
                accept_content=["json"],
                # A caller waits for an answer: report an unreachable broker soon.
                task_publish_retry_policy={"max_retries": 2, "interval_start": 0.1},
                broker_transport_options={
                    # A Redis that takes connections and answers nothing must not hold callers.
                    "socket_connect_timeout": 3,
                    "socket_timeout": 5,
                    # kombu's own pauses between tries to connect, which begin at 2 seconds.
                    "interval_start": 0.1,
                    "interval_max": 0.2,
                    **confirmed,
                    **(broker_options or {}),
                },
                result_backend_transport_options={
                    "retry_policy": {"max_retries": 2},
                    **(result_options or {}),
                },
                redis_socket_connect_timeout=3,
                redis_socket_timeout=10,
                redis_backend_health_check_interval=10,
            )
        self._admission = admission or Admission()
        self._redis_url = redis_url or broker_url
        self._result_backend = result_backend
        self._settings: Settings | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> ClasperClient:
        """A client for the broker that the settings name."""
        client = cls(
            settings.celery_broker_url,
            settings.result_backend_url,
            admission=Admission.from_settings(settings),
            broker_options=options_for_celery(settings.celery_broker_url, settings),
            result_options=options_for_celery(settings.result_backend_url, settings),
            redis_url=settings.redis_url,
        )
        client._settings = settings
        return client

    def send(self, request: Mapping[str, Any], *, job_id: str | None = None) -> EnqueuedTurn:
        """Check a send request and enqueue it.

        Args:
            request: the fields of the contract's send request.
            job_id: the Celery task's id; a new one when omitted.

        Raises:
            InvalidRequestError: names every bad field, and what could only fail: see `Admission`.
            StateUnavailableError: the broker cannot be reached.
        """
        checked, fields = self._admission.admit(request)
        return self.enqueue(checked, fields, job_id=job_id)

    def stream(self, request: Mapping[str, Any], *, job_id: str | None = None) -> TurnStream:
        """Enqueue a turn as `send` does, and follow its events, the text as it comes.

        ``for event in client.stream(...)``, or ``async for``, which enqueues at once as well.

        Raises:
            InvalidRequestError, StateUnavailableError: as `send`.
        """
        turn = self.send({**request, "stream": True}, job_id=job_id)
        return TurnStream(self._open_reader, turn.job_id, turn.turn_id)

    def follow(self, job_id: str, *, last_event_id: str | None = None) -> TurnStream:
        """Follow a job that was enqueued before, by whomever.

        Args:
            job_id: the Celery task's id, or the turn's.
            last_event_id: go on after this event.
        """
        return TurnStream(self._open_reader, job_id, None, last_event_id)

    @asynccontextmanager
    async def _open_reader(self) -> AsyncIterator[StreamReader]:
        state = redis_client(self._redis_url, self._settings)
        results = JobResults(self.app, self._result_backend)
        places = Places(open_schedule(self._settings) if self._settings else None)
        reader = StreamReader(state, results, places)
        try:
            yield reader
        finally:
            await reader.close()
            await results.close()
            await state.aclose()

    def enqueue(
        self,
        checked: SendRequest,
        request: Mapping[str, Any],
        *,
        job_id: str | None = None,
        queue: str = TURN_QUEUE,
        headers: Mapping[str, Any] | None = None,
    ) -> EnqueuedTurn:
        """Enqueue a request that was checked already; its fields are sent as they were given.

        Args:
            checked: the request as `parse_send_request` returned it.
            request: its fields.
            job_id: the Celery task's id; a new one when omitted.
            queue: one of `clasper_worker.config.names.QUEUES`.
            headers: of the message; workers trust them, so nothing of a caller's belongs in them.

        Raises:
            StateUnavailableError: the broker cannot be reached.
        """
        job_id = self.submit(SEND_TASK, request, job_id=job_id, queue=queue, headers=headers)
        turn_id = turn_id_for(checked.user_id, checked.idempotency_key, job_id)
        return EnqueuedTurn(job_id, turn_id, self.app.AsyncResult(job_id))

    def submit(
        self,
        task: str,
        request: Mapping[str, Any],
        *,
        job_id: str | None = None,
        queue: str = TURN_QUEUE,
        keeps_result: bool = True,
        headers: Mapping[str, Any] | None = None,
    ) -> str:
        """Enqueue a task; its request is sent as it was given.

        Args:
            task: the task's name, such as ``clasper.compact``.
            request: its keyword arguments.
            job_id: the Celery task's id; a new one when omitted.
            queue: one of `QUEUES` (`clasper_worker.config.names`); that of the tasks that a person
                waits for when omitted.
            keeps_result: whether anybody may ask for its result.
            headers: of the message, beside those that are made here.

        Returns:
            The Celery task's id.

        Raises:
            StateUnavailableError: the broker cannot be reached.
        """
        job_id = job_id or str(uuid.uuid4())
        trace = current_trace()
        traced = {} if trace is None else {TRACEPARENT: trace.traceparent}
        deadline = time.monotonic() + _REFUSED_SECONDS
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                self._sender.send_task(
                    task,
                    kwargs=dict(request),
                    queue=queue,
                    ignore_result=not keeps_result,
                    task_id=job_id,
                    argsrepr="()",
                    kwargsrepr=redacted(request),
                    headers={**traced, **(headers or {}), **route_header(task, request)},
                )
            except Exception as exc:
                kind = redis_fault(exc)
                if kind is None:
                    raise
                if kind is not RedisFault.REFUSED or time.monotonic() + pause > deadline:
                    raise _not_enqueued(exc, kind) from exc
            else:
                return job_id
            time.sleep(pause)
            pause *= 2

    def close(self) -> None:
        """Close the connections."""
        self._sender.close()
        self.app.close()


def _not_enqueued(exc: Exception, kind: RedisFault) -> StateUnavailableError:
    if kind is RedisFault.LOST:
        return StateUnavailableError(
            "The broker cannot be reached: check CELERY_BROKER_URL, or start everything with"
            " `clasper up`"
        )
    return typed_error(exc, "CELERY_BROKER_URL")
