"""What one channel has been given and has not settled: kombu's book-keeping, over leases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery.worker import state as worker_state
from kombu.transport import redis as stock
from kombu.transport import virtual

from clasper_worker.broker.leases import is_lease_token


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
