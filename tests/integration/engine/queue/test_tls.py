"""Redis behind TLS (``rediss://``)."""

from __future__ import annotations

import select
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kombu import Connection, Consumer, Queue
from kombu.exceptions import OperationalError
from kombu.message import Message

from clasper_worker.celery import celery_configuration
from clasper_worker.client import ClasperClient
from clasper_worker.config.settings import Settings
from clasper_worker.devkit.local_stack.redis_server import RunningRedis
from clasper_worker.engine.queue.scheduler import open_schedule
from clasper_worker.engine.redis.scripts import redis_client

pytestmark = [
    pytest.mark.integration,
    # Celery's result backend, with redis-py 8.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate for 127.0.0.1 that vouches for itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here")
    folder = tmp_path_factory.mktemp("tls")
    key, made = folder / "key.pem", folder / "made.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(made)),
        ],
        check=True,
        capture_output=True,
    )
    both = folder / "both.pem"
    both.write_text(key.read_text() + made.read_text())
    return both


class TlsProxy:
    """Takes TLS connections and passes what they say on to a server that has none."""

    def __init__(self, port: int, certificate: Path) -> None:
        self._to = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._open: list[socket.socket] = []
        self.refused = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                taken, _ = self._server.accept()
            except OSError:  # closed
                return
            try:
                inner = self._context.wrap_socket(taken, server_side=True)
            except OSError:  # not TLS, or our certificate is not trusted
                self.refused += 1
                taken.close()
                continue
            outer = socket.create_connection(("127.0.0.1", self._to))
            self._open += [inner, outer]
            threading.Thread(target=self._pass, args=(inner, outer), daemon=True).start()

    @staticmethod
    def _pass(inner: ssl.SSLSocket, outer: socket.socket) -> None:
        # Both ways in one thread: OpenSSL lets no two of them use a connection at a time.
        other = {inner: outer, outer: inner}
        try:
            while True:
                ready = [inner] if inner.pending() else select.select([*other], [], [])[0]
                for one in ready:
                    said = one.recv(65536)
                    if not said:
                        return
                    other[one].sendall(said)
        except (OSError, ValueError):  # closed
            pass
        finally:
            for end in other:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for one in self._open:
            one.close()


@pytest.fixture
def proxy(redis_server: RunningRedis, certificate: Path) -> Iterator[TlsProxy]:
    proxy = TlsProxy(redis_server.port, certificate)
    yield proxy
    proxy.close()


MakeSettings = Callable[[str], Settings]


@pytest.fixture
def settings_for(proxy: TlsProxy, settings_of: Callable[..., Settings]) -> MakeSettings:
    def make(query: str) -> Settings:
        return settings_of(celery_broker_url=f"rediss://127.0.0.1:{proxy.port}/0{query}")

    return make


def connect(settings: Settings) -> Connection:
    """As a worker of ours does."""
    conf = celery_configuration(settings)
    return Connection(
        conf["broker_url"],
        transport=conf["broker_transport"],
        transport_options=conf["broker_transport_options"],
    )


@pytest.mark.parametrize("query", ["?ssl_ca_certs={}", "?ssl_cert_reqs=CERT_NONE"])
async def test_everything_that_asks_redis_goes_through_tls(
    site: object, settings_for: MakeSettings, certificate: Path, proxy: TlsProxy, query: str
) -> None:
    settings = settings_for(query.format(certificate))
    client = ClasperClient.from_settings(settings)
    client.send(
        {"user_id": "u1", "agent_role": "r", "task_title": "T", "message": "Hello"}, job_id="a"
    )
    got: list[Message] = []
    with connect(settings) as connection:
        queue = Queue("clasper", no_declare=True)
        with Consumer(connection.default_channel, [queue], on_message=got.append):
            connection.drain_events(timeout=30)
        (message,) = got
        assert message.headers["id"] == "a"
        schedule = open_schedule(settings)
        assert schedule is not None
        assert schedule.refresh([message.delivery_tag]) == ()
        schedule.close()
        message.ack()
    client.app.backend.store_result("a", "fine", "SUCCESS")
    state = redis_client(settings.redis_url, settings)
    assert await state.exists("celery-task-meta-a")
    await state.aclose()
    client.close()
    assert proxy.refused == 0


def test_a_certificate_that_nobody_vouches_for_is_refused(
    settings_for: MakeSettings, proxy: TlsProxy
) -> None:
    with connect(settings_for("")) as connection, pytest.raises(OperationalError):
        connection.ensure_connection(max_retries=1, interval_start=0)
    assert proxy.refused > 0
