"""kombu's Redis transport, with messages taken through the scheduler (`schedule.lua`).

Plugged in by Celery's setting ``broker_transport`` on the workers' side alone: producers stay stock
Celery, and what they send is unchanged. Differences to kombu's own transport:

- a message is taken and leased in one step, so that no kill can lose it in between;
- many messages are taken, and many acknowledged, in one exchange with Redis;
- turns of one session come one at a time, and users share the worker (lanes, caps);
- leases are short and kept by `leases.LeaseKeeper`, under keys of our own, so that other
  Celery apps on the same Redis are left alone.

Queues that are consumed without acknowledgement (replies to remote control) stay kombu's own.

To wait for work, a connection moves the last message of the first queue onto itself, which changes
nothing, but which Redis answers only when there is one. It looks after the other queues as often
as that wait ends without one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from functools import cached_property
from queue import Empty
from types import MappingProxyType
from typing import Any

import redis
from celery.worker import state as worker_state
from kombu.asynchronous import Hub
from kombu.transport import redis as stock
from kombu.transport import virtual
from kombu.utils.json import loads
from vine import promise

from clasper_worker.broker.collected import collected_requests
from clasper_worker.broker.delivery import COLLECTED_HEADER, LEASE_HEADER, VERDICT_HEADER
from clasper_worker.broker.leases import LeaseKeeper, is_lease_token
from clasper_worker.broker.schedule import Delivery, Exchanged, Schedule, ScheduleRules

logger = logging.getLogger(__name__)

_WAIT_SECONDS = 0.25  # for the first queue; so long may a message of another one wait
_POLL_SECONDS = 0.1  # between looks where the server cannot wait for a message
_INTAKES_AT_ONCE = 10  # of some 200 messages each: thousands a second
_INTAKE_SECONDS = 0.5  # between looks at the queues while there is no free slot


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
        if requeue:
            self.channel.give_back(delivery_tag, settled=False)
        else:
            reason = getattr(message, "dead_letter_reason", "the worker rejected it")
            self.channel.bury(delivery_tag, reason)

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


class Channel(stock.Channel):
    """A channel whose acknowledged queues are consumed through the scheduler."""

    QoS = LeaseQoS
    # kombu's default keys are shared by every app on the Redis.
    unacked_key = "clasper:unacked"
    unacked_index_key = "clasper:unacked-index"
    unacked_mutex_key = "clasper:unacked-mutex"
    from_transport_options = (*stock.Channel.from_transport_options, "schedule_rules")

    schedule_rules: Mapping[str, Any] = MappingProxyType({})
    """The fields of a `ScheduleRules`; given by the transport option of this name, as plain data,
    since remote control shows transport options."""

    _closing = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._laned: list[str] = []
        self._settled: list[str] = []
        self._released: list[str] = []
        self._exchange_is_due = False
        self._has_more = True
        super().__init__(*args, **kwargs)
        self._exchange_promise = promise(self.exchange_if_due)

    # Consuming

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
        try:
            last = self.client.parse_response(self.client.connection, "BLMOVE", **options)
            waited = time.monotonic() - self._brpop_sent_at
            if self._waits and last is None and waited < _WAIT_SECONDS / 4:
                self._polls = True  # fakeredis does not wait
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if self._closing or not self._exchange():
            raise Empty
        return True

    def take_in(self) -> None:
        """Move messages from the queues into lanes while this worker has no slot for them."""
        for _ in range(_INTAKES_AT_ONCE):
            if not self._laned or self._closing or self.qos.can_consume():
                return
            self._exchange()
            if not self._has_more:
                return

    # Giving back

    def give_back(self, token: str, *, settled: bool) -> None:
        """Settle or release a delivery, with the next exchange. From any thread."""
        (self._settled if settled else self._released).append(token)
        self._drop([token])
        if self.closed:
            # Its connection was lost meanwhile: the next one's channel passes it on.
            self._hand_over()
            return
        hub = self._hub
        if hub is None:
            self._exchange(take=False)
        elif not self._exchange_is_due:
            self._exchange_is_due = True
            # Wakes the consumer's thread, and does it where a shutdown turns no hub; otherwise
            # the hub's next tick does.
            hub.call_soon(self._exchange_promise)

    def bury(self, token: str, reason: str) -> None:
        """Make a delivery a dead letter."""
        self._drop([token])
        buried = self._schedule.bury(token, reason)
        if self._keeper is not None:
            self._keeper.report(Exchanged((), (), buried, more=False))

    def release_all(self, tokens: Iterable[str]) -> None:
        """Release deliveries, now."""
        held = [token for token in tokens if is_lease_token(token)]
        self._drop(held)
        if not held:
            return
        self._released += held
        try:
            self._exchange(take=False)
        except self.connection_errors:
            self._released.clear()
            logger.warning("%d deliveries wait for their leases to lapse", len(held))

    def close(self) -> None:
        """Close the channel; what was settled is passed on first."""
        self._closing = True
        if not self.closed:
            try:
                if self._settled:
                    self._exchange(take=False)
                if self._qos is not None:
                    self._qos.restore_unacked_once()
            except self.connection_errors:
                logger.debug("the connection is gone; the next one passes on what is settled")
        try:
            super().close()
        finally:
            self._hand_over()

    def _hand_over(self) -> None:
        keeper = self._keeper
        if keeper is None:
            return
        settled, self._settled = self._settled, []
        keeper.leave(settled)

    # The exchange

    def exchange_if_due(self) -> None:
        """Give back what was settled since the last time, and take as much."""
        if self._exchange_is_due and not self.closed:
            self._exchange()

    def _exchange(self, *, take: bool = True) -> bool:
        self._exchange_is_due = False
        keeper = self._keeper
        settled, self._settled = self._settled, []
        released, self._released = self._released, []
        if keeper is not None:
            settled += keeper.take_left()
        free, intake = self._appetite() if take and not self._closing else (0, 0)
        began = time.monotonic()
        try:
            found = self._schedule.exchange(
                settled=settled, released=released, free=free, intake=intake
            )
        except BaseException:
            self._settled[:0], self._released[:0] = settled, released
            raise
        # What was given back may have made another message ready.
        self._has_more = found.more or not take
        if keeper is not None:
            keeper.hold((delivery.token for delivery in found.deliveries), since=began)
            keeper.report(found)
        self._deliver_all(found)
        return bool(found.deliveries)

    def _appetite(self) -> tuple[int, int]:
        if not self._laned:
            return 0, 0
        free = self.qos.can_consume_max_estimate()
        return (self._unlimited if free is None else free), self._intake

    _unlimited = 1000  # messages at a time for a consumer that set no limit
    _intake = 200

    def _deliver_all(self, found: Exchanged) -> None:
        waiting = list(found.deliveries)
        waiting.reverse()
        try:
            while waiting:
                delivery = waiting[-1]
                if delivery.queue not in self._laned:  # cancelled meanwhile
                    self.give_back(delivery.token, settled=False)
                elif (payload := self._read(delivery)) is not None:
                    if delivery.verdict == "cancelled":
                        _note_revoked(delivery)
                    self.connection._deliver(payload, delivery.queue)  # noqa: SLF001 - as kombu's own
                waiting.pop()
        except BaseException:
            self.qos.release_unseen(delivery.token for delivery in waiting)
            raise

    def _read(self, delivery: Delivery) -> dict[str, Any] | None:
        """What the consumer is shown; None of a message that would stop every worker it came to."""
        try:
            payload = _payload(delivery)
            self.Message(payload, channel=self)  # decodes the body
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with it
            reason = f"not a message that can be read: {type(exc).__name__}"
            logger.error("%s (%s)", reason, delivery.token)  # noqa: TRY400 - its text may be private
            self.bury(delivery.token, reason)
            return None
        return payload

    def _drop(self, tokens: Iterable[str]) -> None:
        if self._keeper is not None:
            self._keeper.drop(tokens)

    @property
    def _keeper(self) -> LeaseKeeper | None:
        return getattr(self.connection, "keeper", None) or self.last_keeper

    last_keeper: LeaseKeeper | None = None

    @property
    def _hub(self) -> Hub | None:
        return getattr(self.connection, "hub", None)

    def _keys_of(self, queue: str) -> list[str]:
        return [
            self.global_keyprefix + self._q_for_pri(queue, step) for step in self.priority_steps
        ]

    def _forget_schedule(self) -> None:
        self.__dict__.pop("_schedule", None)
        self._has_more = True

    @cached_property
    def _schedule(self) -> Schedule:
        return Schedule(
            redis.Redis(connection_pool=self.pool),
            ScheduleRules(**self.schedule_rules),
            [(queue, self._keys_of(queue)) for queue in self._laned],
        )


class Transport(stock.Transport):
    """The transport.

    Attributes:
        keeper: prolongs the leases of what this worker runs; set by the worker.
        hub: the event loop of the consumer, where there is one.
    """

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.keeper: LeaseKeeper | None = None
        self.hub: Hub | None = None
        self._intake_timer: Any = None

    def attach(self, keeper: LeaseKeeper) -> None:
        """Have the deliveries' leases kept."""
        self.keeper = keeper
        for channel in self.channels:
            channel.last_keeper = keeper  # a closed channel forgets its transport

    def create_channel(self, connection: Any) -> Any:
        """Create a channel."""
        channel = super().create_channel(connection)
        channel.last_keeper = self.keeper
        return channel

    def register_with_event_loop(self, connection: Any, loop: Hub) -> None:
        """Consume through this event loop."""
        self.hub = loop
        super().register_with_event_loop(connection, loop)
        # Before the hub waits; what it is asked to call soon by itself it calls after that.
        loop.on_tick.add(self._exchange_what_is_due)
        if self._intake_timer is not None:
            self._intake_timer.cancel()
        self._intake_timer = loop.call_repeatedly(_INTAKE_SECONDS, self._take_in)

    def close_connection(self, connection: Any) -> None:
        """Close the channels."""
        if self.hub is not None:
            self.hub.on_tick.discard(self._exchange_what_is_due)
        super().close_connection(connection)

    def _exchange_what_is_due(self) -> None:
        for channel in list(self.channels):
            channel.exchange_if_due()

    def _take_in(self) -> None:
        for channel in list(self.channels):
            channel.take_in()


def _payload(delivery: Delivery) -> dict[str, Any]:
    payload: dict[str, Any] = loads(delivery.raw.decode())
    payload["properties"]["delivery_tag"] = delivery.token
    if not isinstance(payload["properties"].setdefault("delivery_info", {}), dict):
        raise TypeError("delivery_info is no object")
    headers = payload["headers"]
    headers[LEASE_HEADER] = delivery.token
    if delivery.is_redelivered:
        headers["redelivered"] = True
        payload["properties"]["delivery_info"]["redelivered"] = True
    if delivery.verdict:
        headers[VERDICT_HEADER] = delivery.verdict
    if delivery.collected:
        headers[COLLECTED_HEADER] = collected_requests(delivery.collected)
    return payload


def _note_revoked(delivery: Delivery) -> None:
    # Then Celery announces it as revoked, stores that, and settles it.
    worker_state.revoked.add(loads(delivery.raw.decode())["headers"]["id"])


def _is_stopping() -> bool:
    return worker_state.should_stop is not None or worker_state.should_terminate is not None


def _running_tokens() -> set[str]:
    return {request.message.delivery_tag for request in list(worker_state.active_requests)}
