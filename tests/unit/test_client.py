"""The client's connections."""

import socket

import pytest

from clasper_worker.client import ClasperClient
from clasper_worker.errors import StateUnavailableError

REQUEST = {"user_id": "u1", "message": "Hello", "task_title": "T"}


def test_a_broker_that_takes_the_connection_and_never_answers_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"redis://127.0.0.1:{mute.getsockname()[1]}/0"
        client = ClasperClient(url, "cache+memory://", broker_options={"socket_timeout": 0.2})
        with pytest.raises(StateUnavailableError):
            client.send(REQUEST)
        client.close()


def test_no_caller_waits_for_an_answer_of_the_broker_without_end() -> None:
    client = ClasperClient("redis://127.0.0.1:1/0", "cache+memory://")
    assert client.app.conf.broker_transport_options["socket_timeout"] <= 10
    client.close()
