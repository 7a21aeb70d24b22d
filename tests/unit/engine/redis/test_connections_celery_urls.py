"""Certificates are checked whichever way Celery gets a URL."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest

from clasper_worker.celery import TRANSPORT, ClasperCelery
from clasper_worker.client import ClasperClient
from clasper_worker.config.settings import get_settings


@pytest.fixture
def from_the_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Celery reads these itself, before its configuration."""
    monkeypatch.setenv("CELERY_BROKER_URL", "rediss://one")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "rediss://two?ssl_cert_reqs=CERT_OPTIONAL")
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def test_a_worker_connects_over_tls_and_checks_certificates(from_the_environment: None) -> None:
    app = ClasperCelery("test", set_as_current=False)
    connection = app.connection_for_read()
    assert connection.transport_cls == TRANSPORT
    assert connection.ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    assert app.backend.connparams["ssl_cert_reqs"] == ssl.CERT_OPTIONAL
    app.close()


def test_so_does_a_client(from_the_environment: None) -> None:
    client = ClasperClient.from_settings(get_settings())
    assert client.app.connection_for_write().ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    assert client.app.backend.connparams["ssl_cert_reqs"] == ssl.CERT_OPTIONAL
    client.close()


def test_what_stands_around_a_url_is_left_out_where_celery_reads_it_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", ' "redis://one:1/0"\n')
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://two:2/0\r\n")
    get_settings.cache_clear()
    app = ClasperCelery("test", set_as_current=False)
    client = ClasperClient.from_settings(get_settings())
    get_settings.cache_clear()
    for connection in (app.connection_for_read(), client.app.connection_for_write()):
        assert (connection.hostname, connection.port) == ("one", 1)
    assert (app.backend.connparams["host"], app.backend.connparams["port"]) == ("two", 2)
    client.close()
    app.close()
