"""The workers' transport over a Redis behind Sentinels."""

from __future__ import annotations

from typing import Any

import redis
from kombu.transport import redis as stock

from clasper_worker.broker.channel import Channel
from clasper_worker.broker.transport import Transport
from clasper_worker.errors import ConfigurationError
from clasper_worker.sentinel import SentinelMaster
from clasper_worker.settings import get_settings


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
