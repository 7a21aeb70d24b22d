"""The worker's side of the scheduler: keeps leases, stops turns, and says what was buried."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import redis
from celery import bootsteps
from celery.worker import state as worker_state
from celery.worker.consumer.connection import Connection
from kombu.asynchronous import Hub
from vine import promise

from clasper_worker.broker.burials import Burials, store_burial
from clasper_worker.broker.leases import LeaseKeeper
from clasper_worker.broker.rules import ScheduleRules
from clasper_worker.broker.schedule import Schedule
from clasper_worker.broker.transport import Transport
from clasper_worker.concurrency.consumer import BatchingConsumer

logger = logging.getLogger(__name__)

_ANSWER_SECONDS = 5.0  # that Redis may take for the keeper, though not longer than half a lease


_LONGEST_REFUSED_SECONDS = 30.0
_LOOK_SECONDS = 0.2


def _is_to_stop() -> bool:
    return worker_state.should_stop is not None or worker_state.should_terminate is not None


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
        message.dead_letter_reason = "not a task message: its headers name no task"
        super().on_unknown_message(body, message)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Bury a message of a task that this worker does not have; its caller gets a failure."""
        message.dead_letter_reason = f"no such task: {message.headers.get('task')}"
        logger.error("%s (%s)", message.dead_letter_reason, message.headers.get("id"))
        # Celery's own log line would quote the message.
        message.reject_log_error(logger, self.connection_errors)
        job_id = message.headers.get("id")
        if job_id:  # another broker than Redis tells of no burial
            try:
                store_burial(self.app, job_id, message.dead_letter_reason)
            except Exception:
                logger.exception("could not store the failure of %s", job_id)
        del body, exc

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Bury a task message that Celery cannot make a request of."""
        message.dead_letter_reason = f"not a valid task message: {type(exc).__name__}"
        logger.error("%s (%s)", message.dead_letter_reason, message.headers.get("id"))
        message.reject_log_error(logger, self.connection_errors)
        del body

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Bury a message whose body cannot be decoded."""
        message.dead_letter_reason = f"its body cannot be decoded: {type(exc).__name__}"
        logger.error("%s", message.dead_letter_reason)
        message.reject_log_error(logger, self.connection_errors)


class KeepLeases(bootsteps.StartStopStep):
    """Starts the keeper with the first connection, and gives it to each connection's transport."""

    requires = (Connection,)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._keeper: LeaseKeeper | None = None
        self._client: redis.Redis | None = None

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
        if self._client is not None:
            self._client.close()

    def _make(self, consumer: Any) -> LeaseKeeper:
        options = consumer.app.conf.broker_transport_options
        rules = ScheduleRules(**options.get("schedule_rules", {}))
        channel = consumer.connection.default_channel
        patience = min(_ANSWER_SECONDS, rules.lease_seconds / 2)
        self._client = redis.Redis(connection_pool=channel.separate_pool(socket_timeout=patience))
        stopper = _Stopper(consumer)
        return LeaseKeeper(
            Schedule(self._client, rules),
            rules.lease_seconds,
            on_lost=stopper.stop,
            on_interrupt=lambda jobs: consumer.app.control.revoke(list(jobs), terminate=True),
            on_cancelled=stopper.revoke,
            on_buried=Burials(Schedule(self._client, rules), consumer.app).report,
        )


class _Stopper:
    """Stops turns that another worker has, or that are cancelled, on the consumer's thread."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    def stop(self, tokens: tuple[str, ...]) -> None:
        """Stop what another worker has taken over."""
        self._soon(self._stop, tokens)

    def revoke(self, jobs: tuple[str, ...]) -> None:
        """Stop jobs as Celery's revoke does, of which this worker may not have heard."""
        self._soon(self._revoke, jobs)

    def _soon(self, do: Callable[[tuple[str, ...]], None], names: tuple[str, ...]) -> None:
        hub: Hub | None = self._consumer.hub
        if hub is None:
            do(names)
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
        for request in list(worker_state.active_requests):
            if request.message.delivery_tag in lost:
                logger.warning("stopping %s: another worker has taken it over", request.id)
                request.cancel(self._consumer.pool, emit_retry=False)
                # Frees its place here; to the scheduler it is nothing, the delivery being void. Not
                # by acknowledging the message: a turn that was just ending does that itself, and
                # kombu takes it only once.
                request.message.channel.basic_ack(request.message.delivery_tag)
