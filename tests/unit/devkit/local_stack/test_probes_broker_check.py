"""A broker that the operator named."""

import socket
from collections.abc import Callable, Iterator

import pytest

from clasper_worker.config.settings import Settings
from clasper_worker.devkit.local_stack.ports import LOOPBACK, PortReservations
from clasper_worker.devkit.local_stack.probes import check_broker
from clasper_worker.errors import StackError


@pytest.fixture
def closed_port() -> Iterator[int]:
    with PortReservations() as ports:
        yield ports.choose(0)


@pytest.fixture
def settings(settings_of: Callable[..., Settings]) -> Settings:
    return settings_of()


@pytest.mark.parametrize("scheme", ["redis", "amqp", "sentinel"])
def test_an_unreachable_broker_is_named_with_its_variable_and_without_its_password(
    scheme: str, closed_port: int, settings: Settings
) -> None:
    with pytest.raises(StackError, match="CELERY_BROKER_URL") as caught:
        check_broker(f"{scheme}://user:pa55word@{LOOPBACK}:{closed_port}/0", settings)

    assert f"{LOOPBACK}:{closed_port}" in str(caught.value)
    assert "no connection" in str(caught.value)
    assert "pa55word" not in str(caught.value)


def test_something_that_is_no_redis_is_refused(settings: Settings) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        server.settimeout(10)

        import threading

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(StackError, match="cannot be used"):
            check_broker(f"redis://{LOOPBACK}:{port}/0", settings)
        thread.join()


def test_an_unknown_kind_of_broker_is_refused(settings: Settings) -> None:
    with pytest.raises(StackError, match="cannot be used"):
        check_broker("nonsense://somewhere", settings)
