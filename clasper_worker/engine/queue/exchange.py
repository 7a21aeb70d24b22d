"""A channel's exchanges with the scheduler: it gives back what is done, and takes as much.

What is settled from any thread is collected, and goes with the next exchange. While Redis refuses
exchanges (it is full, busy, or a replica for the moment), the channel keeps its connection and what
it has to give back, and tries again after a pause. What cannot be given back on a connection that
is lost is left to the next connection, by way of the keeper.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from queue import Empty
from types import MappingProxyType
from typing import Any

import redis
from celery.worker import state as worker_state
from kombu.asynchronous import Hub
from kombu.transport import redis as stock
from kombu.utils.json import loads
from vine import promise

from clasper_worker.engine.queue.delivery import (
    BEHIND_HEADER,
    COLLECTED_HEADER,
    LEASE_HEADER,
    ROLLS_BACK_HEADER,
    VERDICT_HEADER,
    WAITED_HEADER,
    collected_requests,
)
from clasper_worker.engine.queue.lease_keeper import LeaseKeeper, is_lease_token, lease_time
from clasper_worker.engine.queue.leftovers import Left
from clasper_worker.engine.queue.message import modern
from clasper_worker.engine.queue.policy import ScheduleRules
from clasper_worker.engine.queue.scheduler import Schedule
from clasper_worker.engine.queue.scheduler_types import Delivery, Exchanged
from clasper_worker.engine.redis.faults import RedisFault, redis_fault, typed_error

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_LONGEST_DENIED_SECONDS = 10.0  # until an operator grants the right
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
        self._pause = 0.0  # since Redis refuses: the last one
        self._again_at = 0.0  # and when it ends, by time.monotonic()
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
            self._exchange_unless_refused(take=False)
        elif not self._exchange_is_due:
            self._exchange_is_due = True
            # Wakes the consumer's thread, and does it where a shutdown turns no hub; otherwise
            # the hub's next tick does.
            hub.call_soon(self._exchange_promise)

    def bury(self, token: str, reason: str) -> None:
        """Make a delivery a dead letter; where Redis does not take that, the keeper does it."""
        self._drop([token])
        keeper = self._keeper
        try:
            buried = self._schedule.bury(token, reason)
        except Exception as exc:
            if redis_fault(exc) is None or keeper is None:
                raise
            keeper.leave(Left(buried=[(token, reason)]))
            return
        if keeper is not None:
            keeper.report(Exchanged((), (), buried, more=False))

    def release_all(self, tokens: Iterable[str]) -> None:
        """Release deliveries: now, or when Redis takes that."""
        held = [token for token in tokens if is_lease_token(token)]
        self._drop(held)
        if not held:
            return
        self._given_back.add(released=held)
        if not self._succeeds(lambda: self._exchange(take=False)):
            logger.warning("%d deliveries wait to be released", len(held))

    def close(self) -> None:
        """Close the channel; what was settled is passed on first."""
        self._closing = True
        if not self.closed:
            if self._given_back:
                self._succeeds(lambda: self._exchange(take=False))
            if self._qos is not None:
                self._succeeds(self._qos.restore_unacked_once)
            if self._in_poll:
                self._succeeds(self._end_poll)
        try:
            if not self._succeeds(super().close):
                self._let_go()
        finally:
            self._hand_over()

    def _end_poll(self) -> None:
        try:
            self._brpop_read()
        except Empty:
            pass
        finally:
            self._in_poll = None

    def _let_go(self) -> None:
        """Close what kombu left open as Redis failed it."""
        for close in (
            self._disconnect_pools,
            self._close_clients,
            super(stock.Channel, self).close,
        ):
            self._succeeds(close)
        self.closed = True

    def _succeeds(self, do: Callable[[], object]) -> bool:
        """Do something about a connection that is to be closed; False if Redis failed it."""
        try:
            do()
        except Exception as exc:
            if redis_fault(exc) is None and not isinstance(exc, self.connection_errors):
                raise
            logger.debug("on closing a channel: %s", type(exc).__name__)
            return False
        return True

    def _hand_over(self) -> None:
        keeper = self._keeper
        if keeper is None:
            return
        given = self._given_back.take()
        keeper.leave(Left(given["settled"], given["released"], given["lost"]))

    # The exchange

    def exchange_if_due(self) -> None:
        """Give back what was settled since the last time, and take as much."""
        if self._exchange_is_due and not self.closed:
            self._exchange_unless_refused()

    @property
    def _is_refused(self) -> bool:
        """Whether Redis has refused an exchange, and the pause after it goes on."""
        return self._pause > 0 and time.monotonic() < self._again_at

    def _exchange_unless_refused(self, *, take: bool = True) -> bool:
        """Exchange; where Redis refuses, keep what is to be given back, and pause.

        Returns:
            Whether messages came.
        """
        if self._is_refused:
            return False
        try:
            came = self._exchange(take=take)
        except Exception as exc:
            if not self._waits_for(exc):
                raise
            return False
        if self._pause:
            logger.info("Redis takes our calls again")
            self._pause = 0.0
        return came

    def _waits_for(self, exc: Exception) -> bool:
        """Begin a pause if this is a refusal; False of anything else."""
        kind = redis_fault(exc)
        if kind not in {RedisFault.REFUSED, RedisFault.DENIED}:
            return False
        if not self._pause:
            logger.warning("%s; waiting", typed_error(exc, "CELERY_BROKER_URL"))
        denied = kind is RedisFault.DENIED
        longest = _LONGEST_DENIED_SECONDS if denied else _LONGEST_PAUSE_SECONDS
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE_SECONDS), longest)
        self._again_at = time.monotonic() + self._pause
        return True

    def _exchange(self, *, take: bool = True) -> bool:
        self._exchange_is_due = False
        keeper = self._keeper
        given = self._given_back.take()
        if keeper is not None:
            left = keeper.take_left()
            given["settled"] += left.settled
            given["released"] += left.released
            given["lost"] += left.lost
            if left.buried:
                keeper.leave(Left(buried=left.buried))
        free, intake = self._appetite() if take and not self._closing else (0, 0)
        began = lease_time()
        try:
            found = self._schedule.exchange(**given, free=free, intake=intake)
        except BaseException:
            self._given_back.add(**given)
            self._exchange_is_due = bool(self._given_back)
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
        # Re-entrant: a shutdown's signal handler may come here while it interrupts its own thread.
        self._lock = threading.RLock()
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

    def __bool__(self) -> bool:
        return any(self._tokens.values())

    @staticmethod
    def _none() -> dict[str, list[str]]:
        return {"settled": [], "released": [], "lost": []}


def payload_of(delivery: Delivery) -> dict[str, Any]:
    """The message as kombu delivers it, in protocol 2, with headers that tell of this delivery.

    kombu knows one encoding of bodies, and fails of any other name for one that is not encoded.

    Raises:
        Exception: it is none that can be read; of whatever kind.
    """
    payload: dict[str, Any] = modern(loads(delivery.raw.decode()))
    payload["properties"]["delivery_tag"] = delivery.token
    if payload["properties"].get("body_encoding") != "base64":
        payload["properties"]["body_encoding"] = None
    if not isinstance(payload["properties"].setdefault("delivery_info", {}), dict):
        raise TypeError("delivery_info is no object")
    headers = payload["headers"]
    for ours in (VERDICT_HEADER, COLLECTED_HEADER, ROLLS_BACK_HEADER):
        headers.pop(ours, None)  # whatever its sender says of it
    headers[LEASE_HEADER] = delivery.token
    headers[WAITED_HEADER] = delivery.waited
    headers[BEHIND_HEADER] = delivery.behind
    if delivery.is_redelivered:
        headers["redelivered"] = True
        payload["properties"]["delivery_info"]["redelivered"] = True
    if delivery.verdict:
        headers[VERDICT_HEADER] = delivery.verdict
    if delivery.collected:
        headers[COLLECTED_HEADER] = collected_requests(delivery.collected)
    if delivery.rolls_back:
        headers[ROLLS_BACK_HEADER] = loads(delivery.rolls_back.decode())
    return payload


def note_revoked(delivery: Delivery) -> None:
    """Have Celery take the job for revoked: it announces that, stores it, and settles it."""
    worker_state.revoked.add(modern(loads(delivery.raw.decode()))["headers"]["id"])
