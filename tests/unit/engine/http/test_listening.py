"""Sockets that servers listen on."""

import socket

import pytest
from click.testing import CliRunner

from clasper_worker.cli import backend, offline_model, serve
from clasper_worker.engine.http.listening import listen_on, url_of
from clasper_worker.errors import ConfigurationError

NAMES = {"host_name": "--host", "port_name": "--port"}


def test_a_free_port_is_listened_on_and_told() -> None:
    with listen_on("127.0.0.1", 0, **NAMES) as listener:
        with socket.create_connection(listener.getsockname()):
            pass
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_port_in_use_and_a_host_that_is_not_here_are_explained() -> None:
    with listen_on("127.0.0.1", 0, **NAMES) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=r"is in use.*--port"):
            listen_on("127.0.0.1", port, **NAMES)
    with pytest.raises(ConfigurationError, match=r"Cannot listen on 192\.0\.2\.1"):
        listen_on("192.0.2.1", 0, **NAMES)


@pytest.mark.parametrize("server", [serve, backend, offline_model])
def test_every_server_explains_that_its_port_is_taken(
    server: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_JWT_SECRET", "x" * 32)
    with listen_on("127.0.0.1", 0, **NAMES) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(server.command, ["--port", str(port)])  # type: ignore[attr-defined]
    assert result.exit_code == 1
    assert isinstance(result.exception, ConfigurationError)
    assert f"127.0.0.1, port {port}: it is in use" in str(result.exception)
