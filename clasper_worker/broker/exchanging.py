"""A channel's exchanges with the scheduler: it gives back what is done, and takes as much.

What is settled from any thread is collected, and goes with the next exchange; one that could not
be made on a connection which was lost is left to the next connection, by way of the keeper.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

import redis
from kombu.asynchronous import Hub
from kombu.transport import redis as stock
from vine import promise

from clasper_worker.broker.answers import Delivery, Exchanged
from clasper_worker.broker.leases import LeaseKeeper, is_lease_token, lease_time
from clasper_worker.broker.payload import note_revoked, payload_of
from clasper_worker.broker.rules import ScheduleRules
from clasper_worker.broker.schedule import Schedule

logger = logging.getLogger(__name__)


class ExchangingChannel(stock.Channel):
    """A channel that gets messages from the scheduler, and gives them back to it.

    Attributes:
        schedule_rules: the fields of a `ScheduleRules`; given by the transport option of this name,
            as plain data, since remote control shows transport options.
        last_keeper: prolongs the leases of what this worker runs.
    """

    from_transport_options = (*stock.Channel.from_transport_options, "schedule_rules")

    schedule_rules: Mapping[str, Any] = MappingProxyType({})
    last_keeper: LeaseKeeper | None = None

    _closing = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._laned: list[str] = []  # the queues that are consumed through the scheduler
        self._given_back = _GivenBack()
        self._exchange_is_due = False
        self._has_more = True
        super().__init__(*args, **kwargs)
        self._exchange_promise = promise(self.exchange_if_due)

    # Giving back

    def give_back(self, token: str, *, settled: bool, lost: bool = False) -> None:
        """Settle or release a delivery, with the next exchange. From any thread.

        Args:
            token: the delivery's.
            settled: whether it is done for good.
            lost: whether the process that ran it was lost, of which the message may be the cause.
        """
        kind = "settled" if settled else "lost" if lost else "released"
        self._given_back.add(**{kind: (token,)})
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
        self._given_back.add(released=held)
        try:
            self._exchange(take=False)
        except self.connection_errors:
            self._given_back.withdraw(held)
            logger.warning("%d deliveries wait for their leases to lapse", len(held))

    def close(self) -> None:
        """Close the channel; what was settled is passed on first."""
        self._closing = True
        if not self.closed:
            try:
                if self._given_back:
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
        keeper.leave(self._given_back.take_settled())

    # The exchange

    def exchange_if_due(self) -> None:
        """Give back what was settled since the last time, and take as much."""
        if self._exchange_is_due and not self.closed:
            self._exchange()

    def _exchange(self, *, take: bool = True) -> bool:
        self._exchange_is_due = False
        keeper = self._keeper
        given = self._given_back.take()
        if keeper is not None:
            given["settled"] += keeper.take_left()
        free, intake = self._appetite() if take and not self._closing else (0, 0)
        began = lease_time()
        try:
            found = self._schedule.exchange(**given, free=free, intake=intake)
        except BaseException:
            self._given_back.add(**given)
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
                        note_revoked(delivery)
                    self.connection._deliver(payload, delivery.queue)  # noqa: SLF001 - as kombu's own
                waiting.pop()
        except BaseException:
            self.qos.release_unseen(delivery.token for delivery in waiting)
            raise

    def _read(self, delivery: Delivery) -> dict[str, Any] | None:
        """What the consumer is shown; None of a message that would stop every worker it came to."""
        try:
            payload = payload_of(delivery)
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

    @property
    def _hub(self) -> Hub | None:
        return getattr(self.connection, "hub", None)

    def _keys_of(self, queue: str) -> list[str]:
        return [
            self.global_keyprefix + self._q_for_pri(queue, step) for step in self.priority_steps
        ]

    def separate_pool(self, **options: Any) -> redis.ConnectionPool:
        """Connections to the same Redis as this channel's, which outlive it.

        Args:
            **options: of redis-py's connections; those that are not given are as this channel's.
        """
        pool = self.pool
        return redis.ConnectionPool(
            connection_class=pool.connection_class, **{**pool.connection_kwargs, **options}
        )

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


class _GivenBack:
    """What a channel is to give back with its next exchange. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens = self._none()

    def add(self, **tokens: Iterable[str]) -> None:
        """Add tokens by kind: ``settled``, ``released``, ``lost``."""
        with self._lock:
            for kind, more in tokens.items():
                self._tokens[kind] += more

    def take(self) -> dict[str, list[str]]:
        """All of them, by kind; each token is taken once."""
        with self._lock:
            taken, self._tokens = self._tokens, self._none()
        return taken

    def take_settled(self) -> list[str]:
        """What is done for good."""
        with self._lock:
            taken, self._tokens["settled"] = self._tokens["settled"], []
        return taken

    def withdraw(self, tokens: Iterable[str]) -> None:
        """Release these no longer."""
        unwanted = frozenset(tokens)
        with self._lock:
            self._tokens["released"] = [t for t in self._tokens["released"] if t not in unwanted]

    def __bool__(self) -> bool:
        return any(self._tokens.values())

    @staticmethod
    def _none() -> dict[str, list[str]]:
        return {"settled": [], "released": [], "lost": []}
