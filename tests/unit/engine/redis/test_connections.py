"""URLs of Sentinels, and who takes which part of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from clasper_worker.celery import SENTINEL_TRANSPORT, ClasperCelery, celery_configuration
from clasper_worker.client import ClasperClient
from clasper_worker.config.settings import Settings, get_settings
from clasper_worker.engine.redis.connections import (
    SentinelMaster,
    blocking_client,
    options_for_celery,
    shown_url,
)
from clasper_worker.engine.redis.scripts import redis_client
from clasper_worker.errors import ConfigurationError

URL = "sentinel://me:pass%2Fword@one:7000/3;sentinel://two"
SettingsOf = Callable[..., Settings]


@pytest.fixture
def fresh_settings() -> Iterator[None]:
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture
def settings(settings_of: SettingsOf) -> Settings:
    return settings_of(
        celery_broker_url=URL, clasper_sentinel_master="main", clasper_sentinel_password="theirs"
    )


def test_a_url_names_the_sentinels_and_what_the_master_wants(settings: Settings) -> None:
    assert SentinelMaster.of(URL, settings) == SentinelMaster(
        sentinels=(("one", 7000), ("two", 26379)),
        name="main",
        db=3,
        username="me",
        password="pass/word",
        sentinel_password="theirs",
    )


def test_no_password_shows(settings: Settings) -> None:
    shown = repr(SentinelMaster.of(URL, settings)) + repr(settings)
    assert "theirs" not in shown
    assert "pass/word" not in shown


def test_a_url_is_shown_without_any_of_its_passwords() -> None:
    shown = shown_url("sentinel://me:one@a:1/3;sentinel://me:two@b:2")
    assert shown == "sentinel://me:**@a:1/3;sentinel://me:**@b:2/"
    assert shown_url("amqp://me:one@a//") == "amqp://me:**@a//"


def test_another_url_names_none(settings: Settings) -> None:
    assert SentinelMaster.of("redis://one", settings) is None
    assert options_for_celery("redis://one", settings) == {}


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://",
        "sentinel://one;two",
        "sentinel://one/db",
        "sentinel://one:x",
        "sentinel://one?ssl_cert_reqs=none",
        "sentinel://one;redis://two",
    ],
)
def test_a_url_that_cannot_be_read_names_the_variables_and_not_itself(
    settings: Settings, url: str
) -> None:
    with pytest.raises(
        ConfigurationError, match=r"CELERY_BROKER_URL.* sentinel://HOST:26379/0"
    ) as no:
        SentinelMaster.of(url, settings)
    assert url not in str(no.value).replace("sentinel://HOST", "").replace("sentinel://OTHER", "")


def test_everything_of_redis_goes_through_the_brokers_sentinels(settings: Settings) -> None:
    assert settings.result_backend_url == settings.redis_url == URL
    conf = celery_configuration(settings)
    assert conf["broker_transport"] == SENTINEL_TRANSPORT
    assert "theirs" not in str(conf["broker_transport_options"])  # remote control shows these
    assert conf["result_backend"] == URL
    assert conf["result_backend_transport_options"]["master_name"] == "main"
    assert conf["redbeat_redis_url"].startswith("redis-sentinel")
    redbeat = conf["redbeat_redis_options"]
    assert (redbeat["sentinels"], redbeat["service_name"]) == (
        [("one", 7000), ("two", 26379)],
        "main",
    )
    assert (redbeat["db"], redbeat["password"]) == (3, "pass/word")


def test_kombu_knows_of_one_sentinel_alone(
    fresh_settings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It would turn to its own transport with another, on the first lost connection.
    monkeypatch.setenv("CELERY_BROKER_URL", URL)  # which Celery reads before its configuration
    app = ClasperCelery("test", set_as_current=False)
    for connection in (app.connection_for_read(), app.connection_for_write(), app.connection()):
        assert connection.alt == []
        assert connection.transport_cls == SENTINEL_TRANSPORT
        assert (connection.hostname, connection.port) == ("one", 7000)
        assert connection.virtual_host == "3"
    app.close()


def test_a_client_asks_for_the_master_by_its_name(settings: Settings) -> None:
    client = ClasperClient.from_settings(settings)
    for name in ("broker_transport_options", "result_backend_transport_options"):
        assert client.app.conf[name]["master_name"] == "main"
    client.close()


@pytest.fixture
def unreachable(settings_of: SettingsOf) -> Settings:
    return settings_of(celery_broker_url="sentinel://127.0.0.1:1;sentinel://127.0.0.1:2")


def test_that_no_sentinel_answers_is_a_lost_connection(unreachable: Settings) -> None:
    with (
        blocking_client(unreachable.redis_url, unreachable, retry=None) as client,
        pytest.raises(RedisConnectionError),
    ):
        client.ping()


async def test_that_no_sentinel_answers_is_a_lost_connection_to_coroutines_too(
    unreachable: Settings,
) -> None:
    master = SentinelMaster.of(unreachable.redis_url, unreachable)
    assert master is not None
    with pytest.raises(RedisConnectionError, match="no Sentinel knows"):
        await master.find()
    assert redis_client(unreachable.redis_url, unreachable).connection_pool.max_connections
