"""A Redis behind Sentinels: who is asked, for which master, and clients that do so.

A client connects to whichever server is the master when it connects; one whose connection breaks
in a failover asks again. The URL is Celery's: ``sentinel://[USER:PASSWORD@]HOST[:PORT][/DB]``, more
of them after semicolons; user, password and database are the master's, and the first URL's count.
There are no options: neither Sentinels nor the master are asked over TLS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import redis
import redis.asyncio
from celery import Celery
from kombu.utils.url import maybe_sanitize_url, url_to_parts
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.sentinel import Sentinel

from clasper_worker.config.groups import QueueGroup
from clasper_worker.config.values import SENTINEL_SCHEME, bare_value, with_certificate_check
from clasper_worker.errors import ConfigurationError

_PORT = 26379
_ANSWER_SECONDS = 3.0  # of one Sentinel, before the next is asked


@dataclass(frozen=True, slots=True)
class SentinelMaster:
    """A master, and the Sentinels that know where it is.

    Attributes:
        sentinels: host and port of each.
        name: what they call the master.
        db: the number of its database.
        username: of the master; None where it has none.
        password: of the master.
        sentinel_password: of the Sentinels themselves.
    """

    sentinels: tuple[tuple[str, int], ...]
    name: str
    db: int
    username: str | None
    password: str | None = field(repr=False)
    sentinel_password: str | None = field(repr=False)

    @classmethod
    def of(cls, url: str, settings: QueueGroup) -> Self | None:
        """What the URL and the settings say; None of a URL that names no Sentinels.

        Raises:
            ConfigurationError: the URL is none that can be used.
        """
        if not is_sentinel(url):
            return None
        password = settings.clasper_sentinel_password
        try:
            parts = [_parts(one) for one in url.split(";")]
            return cls(
                sentinels=tuple((part.hostname, part.port or _PORT) for part in parts),
                name=settings.clasper_sentinel_master,
                db=int(parts[0].path or 0),
                username=parts[0].username,
                password=parts[0].password,
                sentinel_password=password.get_secret_value() if password else None,
            )
        except ValueError:
            raise ConfigurationError(
                "A URL of Sentinels cannot be read: write CELERY_BROKER_URL, CELERY_RESULT_BACKEND"
                " or CLASPER_REDIS_URL as sentinel://HOST:26379/0;sentinel://OTHER:26379/0, without"
                " options (TLS is none of them)",
                {"variables": ["CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "CLASPER_REDIS_URL"]},
            ) from None

    @property
    def asking(self) -> dict[str, Any]:
        """How a Sentinel is asked, as redis-py and kombu take it (``sentinel_kwargs``)."""
        options: dict[str, Any] = {
            "socket_timeout": _ANSWER_SECONDS,
            "socket_connect_timeout": _ANSWER_SECONDS,
            "retry": None,  # the next Sentinel is asked instead
        }
        return options | ({"password": self.sentinel_password} if self.sentinel_password else {})

    @property
    def for_celery(self) -> dict[str, Any]:
        """What Celery's own Sentinel transport and result backend need beside the URL."""
        return {"master_name": self.name, "sentinel_kwargs": self.asking}

    @property
    def _login(self) -> dict[str, Any]:
        return {"db": self.db, "username": self.username, "password": self.password}

    def blocking_client(self, **options: Any) -> redis.Redis:
        """A client of the master; options are those of redis-py's connections."""
        client: redis.Redis = self.manager().master_for(
            self.name, redis.Redis, **self._login, **options
        )
        return client

    def manager(self, **options: Any) -> Any:
        """What redis-py and kombu find the master by; options are those of connections to it."""
        sentinel: Any = Sentinel  # which has no types
        return sentinel(self.sentinels, sentinel_kwargs=self.asking, **options)

    def asyncio_pool(self, **options: Any) -> redis.asyncio.BlockingConnectionPool:
        """A pool of connections to the master; options are those of redis-py's pool."""
        return redis.asyncio.BlockingConnectionPool(
            connection_class=_MasterConnection, master=self, **self._login, **options
        )

    async def find(self) -> tuple[str, int]:
        """Ask the Sentinels where the master is; the first that knows tells.

        Raises:
            RedisConnectionError: none of them knows.
        """
        for host, port in self.sentinels:
            client: Any = redis.asyncio.Redis(
                host=host,
                port=port,
                password=self.sentinel_password,
                socket_timeout=None,  # see `clasper_worker.engine.redis.scripts`
                retry=Retry(NoBackoff(), 0),
            )
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    found = await client.execute_command(
                        "SENTINEL GET-MASTER-ADDR-BY-NAME", self.name
                    )
            except (RedisError, OSError):  # a TimeoutError is an OSError
                continue
            finally:
                await client.aclose()
            if found:
                address, number = found
                return str(_text(address)), int(number)
        raise RedisConnectionError("no Sentinel knows where the master is")


def is_sentinel(url: str) -> bool:
    """Whether a URL names Sentinels rather than a server."""
    return url.startswith(SENTINEL_SCHEME)


def shown_url(url: str) -> str:
    """A broker's URL as it may be shown: without its passwords, all of them."""
    return ";".join(str(maybe_sanitize_url(one)) for one in url.split(";"))


def blocking_client(url: str, settings: QueueGroup, **options: Any) -> redis.Redis:
    """A client of the Redis at a URL, of whichever kind; it connects when it is first used.

    Raises:
        ConfigurationError: the URL is none that can be used.
    """
    master = SentinelMaster.of(url, settings)
    if master is not None:
        return master.blocking_client(**options)
    client: redis.Redis = redis.Redis.from_url(url, **options)
    return client


def options_for_celery(url: str, settings: QueueGroup) -> Mapping[str, Any]:
    """The transport options of Celery's own classes for this URL; none for other than Sentinels.

    Raises:
        ConfigurationError: the URL is none that can be used.
    """
    master = SentinelMaster.of(url, settings)
    return {} if master is None else master.for_celery


class _MasterConnection(redis.asyncio.Connection):
    """A connection to whichever server is the master when it connects."""

    def __init__(self, *, master: SentinelMaster, **options: Any) -> None:
        super().__init__(**options)
        self._master = master

    async def _connect(self) -> None:
        self.host, self.port = await self._master.find()
        await super()._connect()  # type: ignore[no-untyped-call]

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except ReadOnlyError:
            await self.disconnect()
            raise RedisConnectionError("the master has become a replica") from None


def _parts(url: str) -> Any:
    parts = url_to_parts(url)
    if not is_sentinel(url) or not parts.hostname or parts.query:
        raise ValueError
    return parts


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


class CheckedCelery(Celery):
    """A Celery app that says of each ``rediss://`` URL whether the certificate is checked.

    What stands around a URL by accident, such as a line break, is left out.
    """

    @property
    def backend_cls(self) -> Any:
        """Where results go, as Celery asks for it."""
        url = self.conf.result_backend
        return _read(url)

    def _connection(self, url: Any, *args: Any, **kwargs: Any) -> Any:
        return super()._connection(_read(url), *args, **kwargs)


def _read(url: Any) -> Any:
    return with_certificate_check(bare_value(url)) if isinstance(url, str) else url
