"""kombu's Redis transport, with messages taken through the scheduler (`schedule`).

Plugged in by Celery's setting ``broker_transport`` on the workers' side alone: producers stay stock
Celery, and what they send is unchanged. Differences to kombu's own transport:

- a message is taken and leased in one step, so that no kill can lose it in between;
- many messages are taken, and many acknowledged, in one exchange with Redis (`exchanging`);
- turns of one session come one at a time, and users share the worker (lanes, caps);
- leases are short and kept by `leases.LeaseKeeper`, under keys of our own, so that other
  Celery apps on the same Redis are left alone.

Queues that are consumed without acknowledgement (replies to remote control) stay kombu's own.
"""

from __future__ import annotations

from typing import Any

from kombu.asynchronous import Hub
from kombu.transport import redis as stock

from clasper_worker.broker.channel import Channel
from clasper_worker.broker.leases import LeaseKeeper

_INTAKE_SECONDS = 0.5  # between looks at the queues while there is no free slot


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
