"""The worker's side of the scheduler: keeps leases, stops turns, and says what was buried."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import redis
from celery import bootsteps
from celery.worker import state as worker_state
from celery.worker.consumer import Consumer
from celery.worker.consumer.connection import Connection
from kombu.asynchronous import Hub
from kombu.exceptions import ContentDisallowed
from kombu.utils.imports import symbol_by_name
from vine import promise

from clasper_worker.engine.pool.task_events import task_events
from clasper_worker.engine.queue.channel import active_requests
from clasper_worker.engine.queue.dead_letter_thread import DeadLetterThread
from clasper_worker.engine.queue.dead_letters import store_failure
from clasper_worker.engine.queue.follow_ups import no_such_task
from clasper_worker.engine.queue.lease_keeper import LeaseKeeper, is_lease_token
from clasper_worker.engine.queue.message import TaskMessage
from clasper_worker.engine.queue.policy import ScheduleRules
from clasper_worker.engine.queue.scheduler import Schedule
from clasper_worker.engine.queue.transport import Transport
from clasper_worker.errors import MessageRefusedError

logger = logging.getLogger(__name__)
_ANSWER_SECONDS = 5.0  # that Redis may take for the keeper, though not longer than half a lease
_CLOSE_SECONDS = 2.0  # for reports at the end; what was not reported is found again
REPORTER_SETTING = "clasper_dead_letter_reporter"
"""Celery's setting that names who reports dead letters: ``module:name`` of a factory, which is
given the scheduler and the app and makes an object with ``report`` (`dead_letter_thread.Report`).
Where it is not set, they stay unreported."""
QUEUED_SETTING = "clasper_queued_reporter"
"""Celery's setting that names what is called with turns that wait for their session,
``module:name``: a function of a sequence of `QueuedTurn`, which must neither block nor raise."""
_LONGEST_REFUSED_SECONDS = 30.0
_LOOK_SECONDS = 0.2


def _is_to_stop() -> bool:
    return worker_state.should_stop is not None or worker_state.should_terminate is not None


class BatchingConsumer(Consumer):
    """Sends buffered task events up to ``event_delay`` seconds late, and together.

    Attributes:
        event_delay: seconds; each event still has the time at which it happened.
        event_batch: how many are sent together at most, and then at once. Celery's own limit of
            24 is reached several times in that delay.
    """

    event_delay = 0.2
    event_batch = 200
    _thread: int | None = None  # on which it consumes

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._flush_timer: Any = None
        self._thread = threading.get_ident()
        super().__init__(*args, **kwargs)
        task_events.attach(self)

    def on_send_event_buffered(self) -> None:
        """Send what is buffered soon, unless that is to be done already. From any thread."""
        if self.hub is None:
            return
        if self._thread not in {None, threading.get_ident()}:
            # Of Celery's threads pool, say: the hub's timers are the consumer's thread's alone.
            if self._flush_timer is None:
                self.hub.call_soon(promise(self.on_send_event_buffered))
            return
        self.event_dispatcher.buffer_limit = self.event_batch  # each connection has a new one
        # Celery cancels timers when it loses the broker.
        if self._flush_timer is None or self._flush_timer.canceled:
            self._flush_timer = self.hub.call_later(self.event_delay, self._flush_buffered)

    def shutdown(self) -> None:
        """Send what is buffered, then shut down."""
        self._flush_buffered()
        super().shutdown()

    def _flush_buffered(self) -> None:
        self._flush_timer = None
        self._flush_events()


class TurnConsumer(BatchingConsumer):
    """Keeps a message that is no task, or none of ours, as a dead letter with the reason.

    Celery logs and drops it.
    """

    _refusals = 0  # in a row, of commands that the Redis user may not use

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        """Connect anew; where the user lacks rights, name the command, and wait longer each time.

        Celery would come back at once, dozens of times a second.
        """
        if not isinstance(exc, redis.exceptions.NoPermissionError):
            self._refusals = 0
            super().on_connection_error_after_connected(exc)
            return
        pause = min(2.0**self._refusals, _LONGEST_REFUSED_SECONDS)
        self._refusals += 1
        # Redis names the command, or says that it was a key: never what was sent.
        logger.error(
            "Redis refuses a command to the user of CELERY_BROKER_URL (%s): give it the rights that"
            " docs/redis.md lists. Trying again in %g s",
            exc,
            pause,
        )
        deadline = time.monotonic() + pause
        while time.monotonic() < deadline and not _is_to_stop():
            time.sleep(_LOOK_SECONDS)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """A handler that buries what Celery's own fails at, which would end worker after worker."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> None:
            try:
                handle(message)
            except (*self.connection_errors, *self.channel_errors):
                raise
            except Exception as exc:
                if message.acknowledged or worker_state.should_stop is not None:
                    raise
                self.on_invalid_task(None, message, exc)

        return on_task_received

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Bury a message without a task's name."""
        del body
        self._refuse(message, "not a task message: its headers name no task")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Bury a message of a task that this worker does not have; its caller gets a failure."""
        del exc
        name = message.headers.get("task")
        if not name and isinstance(body, Mapping):  # protocol 1
            name = body.get("task")
        self._refuse(message, no_such_task(name))

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Bury a task message that Celery cannot make a request of."""
        del body
        self._refuse(message, _reason(message, exc, "not a valid task message"))

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Bury a message whose body cannot be decoded."""
        self._refuse(message, _reason(message, exc, "its body cannot be decoded"))

    def _refuse(self, message: Any, reason: str) -> None:
        """Bury a message, or on another broker than Redis, reject it and tell its caller.

        Celery's own log line would quote it.
        """
        job_id = message.headers.get("id") or message.properties.get("correlation_id")
        message.dead_letter_reason = reason
        logger.error("%s (%s)", reason, job_id)
        message.reject_log_error(logger, self.connection_errors)
        if not job_id or is_lease_token(message.delivery_tag):
            return
        error = MessageRefusedError(f"The job was refused: {reason}", {"job_id": job_id})
        try:
            store_failure(self.app, job_id, error, _read(message, job_id))
        except Exception as exc:  # noqa: BLE001 - the next message is to be seen to
            failed = type(exc).__name__
            logger.error("could not store the failure of %s: %s", job_id, failed)  # noqa: TRY400


def _reason(message: Any, exc: Exception, what: str) -> str:
    if isinstance(exc, ContentDisallowed):
        kind = str(message.content_type)[:100]
        return f"{what}: of content type {kind}; send JSON (task_serializer='json')"
    return f"{what}: {type(exc).__name__}"


def _read(message: Any, job_id: str) -> TaskMessage | None:
    """The message with what is to follow it, as far as it can be read."""
    try:
        body = message.payload
        follow_ups = body if isinstance(body, Mapping) else body[2]
        return TaskMessage(job_id, "", None, message.headers, dict(follow_ups))
    except Exception:  # noqa: BLE001 - whatever is wrong with it
        return None


class KeepLeases(bootsteps.StartStopStep):
    """Starts the keeper with the first connection, and gives it to each connection's transport."""

    requires = (Connection,)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._keeper: LeaseKeeper | None = None
        self._reporter: DeadLetterThread | None = None
        self._clients: list[redis.Redis] = []

    def start(self, consumer: Any) -> None:
        """Attach the keeper to the connection that was just made."""
        transport = consumer.connection.transport
        if not isinstance(transport, Transport):
            return  # another broker has a redelivery of its own
        if self._keeper is None:
            self._keeper = self._make(consumer)
            consumer.lease_keeper = self._keeper
            self._keeper.start()
        transport.attach(self._keeper)

    def terminate(self, consumer: Any) -> None:
        """Called by Celery where `stop` is, when all is over."""
        del consumer

    def shutdown(self, consumer: Any) -> None:
        """Stop keeping; by now everything was settled or released."""
        del consumer
        if self._keeper is not None:
            self._keeper.stop()
        if self._reporter is not None:
            self._reporter.close(_CLOSE_SECONDS)
        for client in self._clients:
            client.close()

    def _make(self, consumer: Any) -> LeaseKeeper:
        options = consumer.app.conf.broker_transport_options
        rules = ScheduleRules(**options.get("schedule_rules", {}))
        patience = min(_ANSWER_SECONDS, rules.lease_seconds / 2)
        schedule, reported = (self._open(consumer, rules, patience) for _ in range(2))
        self._reporter = reporter = _reporter(consumer.app, reported)
        reporter.start()
        stopper = _Stopper(consumer, reporter)
        return LeaseKeeper(
            schedule,
            rules.lease_seconds,
            on_lost=stopper.stop,
            on_cancelled=stopper.revoke,
            reporter=reporter,
            on_queued=symbol_by_name(consumer.app.conf.get(QUEUED_SETTING)) or (lambda _: None),
        )

    def _open(self, consumer: Any, rules: ScheduleRules, patience: float) -> Schedule:
        # Connections of its own: no thread waits for one that another uses.
        channel = consumer.connection.default_channel
        client = redis.Redis(connection_pool=channel.separate_pool(socket_timeout=patience))
        self._clients.append(client)
        return Schedule(client, rules)


def _reporter(app: Any, schedule: Schedule) -> DeadLetterThread:
    name = app.conf.get(REPORTER_SETTING)
    return DeadLetterThread(
        symbol_by_name(name)(schedule, app).report if name else lambda _: (),
        schedule.told,
        lambda jobs: app.control.revoke(list(jobs), terminate=True),
    )


class _Stopper:
    """Stops turns that another worker has, or that are cancelled, on the consumer's thread.

    Where the consumer turns no hub there is no way into its thread. Then they are stopped on the
    thread of reports, since it takes the result backend: never on the keeper's.
    """

    def __init__(self, consumer: Any, reporter: DeadLetterThread) -> None:
        self._consumer = consumer
        self._reporter = reporter

    def stop(self, tokens: tuple[str, ...]) -> None:
        """Stop what another worker has taken over."""
        self._soon(self._stop, tokens)

    def revoke(self, jobs: tuple[str, ...]) -> None:
        """Stop jobs as Celery's revoke does, of which this worker may not have heard."""
        self._soon(self._revoke, jobs)

    def _soon(self, do: Callable[[tuple[str, ...]], None], names: tuple[str, ...]) -> None:
        hub: Hub | None = self._consumer.hub
        if hub is None:
            self._reporter.call(do, names)
        else:
            hub.call_soon(promise(do, (names,)))

    def _revoke(self, jobs: tuple[str, ...]) -> None:
        for job in jobs:
            request = worker_state.requests.get(job)
            if request is None or getattr(request, "_already_revoked", False):
                continue  # it has ended, or is about to
            logger.info("stopping %s: it is cancelled", job)
            worker_state.revoked.add(job)
            request.terminate(self._consumer.pool, signal="TERM")

    def _stop(self, tokens: tuple[str, ...]) -> None:
        lost = set(tokens)
        for request in active_requests():
            if request.message.delivery_tag in lost:
                logger.warning("stopping %s: another worker has taken it over", request.id)
                request.cancel(self._consumer.pool, emit_retry=False)
                # Frees its place here; to the scheduler it is nothing, the delivery being void. Not
                # by acknowledging the message: a turn that was just ending does that itself, and
                # kombu takes it only once.
                request.message.channel.basic_ack(request.message.delivery_tag)
