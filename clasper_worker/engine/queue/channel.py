"""Consuming through the scheduler: which queues, and how an idle worker waits for a message.

To wait for work, a connection moves the last message of the first queue onto itself, which changes
nothing, but which Redis answers only when there is one. It looks after the other queues as often
as that wait ends without one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from queue import Empty
from typing import Any

from celery.worker import state as worker_state
from kombu.transport import redis as stock
from kombu.transport import virtual
from redis.exceptions import ResponseError

from clasper_worker.engine.queue.exchange import ExchangingChannel
from clasper_worker.engine.queue.lease_keeper import is_lease_token

_WAIT_SECONDS = 0.25  # for the first queue; so long may a message of another one wait
_POLL_SECONDS = 0.1  # between looks where the server cannot wait for a message
_INTAKES_AT_ONCE = 10  # of some 200 messages each: thousands a second


class LeaseQoS(stock.QoS):
    """Knows which deliveries this channel has; they are leased already when they get here."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a delivery."""
        if is_lease_token(delivery_tag):
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Settle a delivery: soon, together with others. From any thread."""
        if not is_lease_token(delivery_tag):
            super().ack(delivery_tag)
            return
        virtual.QoS.ack(self, delivery_tag)
        self.channel.give_back(delivery_tag, settled=True)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Release a delivery for another worker, or make it a dead letter."""
        if not is_lease_token(delivery_tag):
            super().reject(delivery_tag, requeue=requeue)
            return
        message = self._delivered.get(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)
        if requeue and getattr(message, "lost_its_process", False):
            self.channel.give_back(delivery_tag, settled=False, lost=True)
        elif requeue:
            self.channel.give_back(delivery_tag, settled=False)
        else:
            reason = getattr(message, "dead_letter_reason", "the worker rejected it")
            self.channel.bury(delivery_tag, reason)

    def forget(self, tokens: Iterable[str]) -> None:
        """Count these as given back, by somebody else."""
        for token in tokens:
            if token in self._delivered:
                virtual.QoS.ack(self, token)

    def release_unseen(self, tokens: Iterable[str]) -> None:
        """Release deliveries which the consumer was not shown."""
        for token in tokens:
            if token not in self._delivered:
                self.channel.give_back(token, settled=False)

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: `LeaseKeeper` looks for what dead workers had."""

    def restore_unacked(self, client: Any = None) -> None:  # noqa: ARG002 - kombu's signature
        """Release what this worker has not settled; on a lost connection, not what it still runs.

        Running turns then keep their leases, and are settled through the next connection.
        """
        self._flush()
        kept = set() if _is_stopping() else _running_tokens()
        self.channel.release_all(tag for tag in self._delivered if tag not in kept)
        self._delivered.clear()


class Channel(ExchangingChannel):
    """A channel whose acknowledged queues are consumed through the scheduler."""

    QoS = LeaseQoS
    # kombu's default keys are shared by every app on the Redis.
    unacked_key = "clasper:unacked"
    unacked_index_key = "clasper:unacked-index"
    unacked_mutex_key = "clasper:unacked-mutex"

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume a queue: through the scheduler, where messages are to be acknowledged."""
        if not no_ack and queue not in self._fanout_queues and queue not in self._laned:
            self._laned.append(queue)
            self._forget_schedule()
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _basic_cancel(self, consumer_tag: str) -> Any:
        queue = self._tag_to_queue.get(consumer_tag)
        if queue in self._laned:
            self._laned.remove(queue)
            self._forget_schedule()
        return super()._basic_cancel(consumer_tag)

    def _brpop_start(self, timeout: float | None = None) -> None:
        if not self._laned:
            super()._brpop_start(timeout)
            return
        if self._is_refused:
            return  # the hub's next turn tries again
        self._in_poll = connection = self.client.connection
        self._brpop_sent_at = time.monotonic()
        self._waits = not self._has_more
        if self._has_more:
            connection.send_command("PING")
        elif self._polls:
            connection.send_command("BRPOP", "clasper:nothing", _POLL_SECONDS)
        else:
            key = self._keys_of(self._laned[0])[0]
            connection.send_command("BLMOVE", key, key, "RIGHT", "RIGHT", _WAIT_SECONDS)

    _waits = False  # rather than ask at once
    _polls = False  # since the server does not wait

    def _brpop_read(self, **options: Any) -> Any:
        if not self._laned:
            return super()._brpop_read(**options)
        if not self._in_poll:  # nothing was asked: the server has closed the connection
            self.client.connection.disconnect()
            raise Empty
        try:
            last = self.client.parse_response(self.client.connection, "BLMOVE", **options)
            waited = time.monotonic() - self._brpop_sent_at
            if self._waits and last is None and waited < _WAIT_SECONDS / 4:
                self._polls = True  # fakeredis does not wait
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        except ResponseError as exc:
            if not self._waits_for(exc):
                raise
            self.client.connection.disconnect()  # its name may lead to another server by now
            raise Empty from None
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if self._closing or not self._exchange_unless_refused():
            raise Empty
        return True

    def take_in(self) -> None:
        """Move messages from the queues into lanes while this worker has no slot for them."""
        for _ in range(_INTAKES_AT_ONCE):
            if not self._laned or self._closing or self.qos.can_consume():
                return
            self._exchange_unless_refused()
            if self._pause or not self._has_more:
                return


def _is_stopping() -> bool:
    return worker_state.should_stop is not None or worker_state.should_terminate is not None


def _running_tokens() -> set[str]:
    return {request.message.delivery_tag for request in active_requests()}


def active_requests() -> list[Any]:
    """What the worker runs now. From any thread, whichever threads begin and end requests."""
    while True:
        try:
            return list(worker_state.active_requests)
        except RuntimeError:  # another thread, of the threads pool say, has begun one meanwhile
            continue
