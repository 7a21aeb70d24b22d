"""kombu's Redis transport, with messages taken through the scheduler (`scheduler`).

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

import redis
from kombu.asynchronous import Hub
from kombu.transport import redis as stock

from clasper_worker.config.settings import get_settings
from clasper_worker.engine.queue.channel import Channel
from clasper_worker.engine.queue.lease_keeper import LeaseKeeper
from clasper_worker.engine.redis.connections import SentinelMaster
from clasper_worker.errors import ConfigurationError

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


class SentinelChannel(Channel, stock.SentinelChannel):
    """A channel to whichever server is the master when it connects.

    The Sentinels are no alternate URLs of kombu's: on a lost connection it would turn to the next
    of those, and to its own transport with it. Nor are they transport options, which remote control
    shows, and the Sentinels' password with them. The channel takes them from the settings.
    """

    from_transport_options = Channel.from_transport_options

    def separate_pool(self, **options: Any) -> redis.ConnectionPool:
        """See `Channel.separate_pool`."""
        pool: redis.ConnectionPool = self._pool_of_master(self._connparams() | options)[1]
        return pool

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        manager, pool = self._pool_of_master(self._connparams(asynchronous))
        # kombu closes the connections to Sentinels with the channel's.
        if asynchronous:
            self._async_sentinel_manager = manager
        else:
            self._sentinel_manager = manager
        return pool

    def _pool_of_master(self, options: dict[str, Any]) -> tuple[Any, Any]:
        settings = get_settings()
        master = SentinelMaster.of(settings.celery_broker_url, settings)
        if master is None:
            raise ConfigurationError(
                "CELERY_BROKER_URL names no Sentinels: sentinel://HOST:26379/0"
            )
        of_servers = {
            name: value for name, value in options.items() if name not in {"host", "port"}
        }
        manager = master.manager(**of_servers)
        return manager, manager.master_for(master.name, redis.Redis).connection_pool


class SentinelTransport(Transport):
    """The workers' transport, for ``sentinel://`` URLs."""

    default_port = stock.SentinelTransport.default_port
    Channel = SentinelChannel
