"""TLS over a checked address: the certificate is that of the name."""

import shutil
import ssl
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import httpcore2
import pytest

from clasper_worker.engine.http.public_addresses import AddressPolicy
from clasper_worker.errors import WebhookUnavailableError
from clasper_worker.webhooks.payload import Delivery
from clasper_worker.webhooks.sender import WebhookSender
from clasper_worker.webhooks.ssrf_guard import CheckedBackend, Resolver
from tests.unit.webhooks.conftest import receiver


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Certificate and key for ``hooks.example``, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here to make a certificate with")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=hooks.example", "-addext", "subjectAltName=DNS:hooks.example"]
    subprocess.run(
        [*command.split(), *names, "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
    )
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    return both


async def local(host: str, port: int) -> Sequence[str]:
    return ("127.0.0.1",)


async def test_the_certificate_is_checked_against_the_name(
    certificate: Path, delivery_to: Callable[..., Delivery]
) -> None:
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate)
    names: list[str | None] = []
    serving.sni_callback = lambda _socket, name, _context: names.append(name)
    trusting = ssl.create_default_context(cafile=certificate)
    policy = AddressPolicy(allow_private=True)
    async with receiver(tls=serving) as server:
        sender = WebhookSender(policy, local, ssl_context=trusting)
        answer = await sender.deliver(delivery_to(f"https://hooks.example:{server.port}/"))
        assert answer.status == 200
        with pytest.raises(WebhookUnavailableError):
            await sender.deliver(delivery_to(f"https://other.example:{server.port}/"))
        stranger = WebhookSender(policy, local)
        with pytest.raises(WebhookUnavailableError):
            await stranger.deliver(delivery_to(f"https://hooks.example:{server.port}/"))
    assert names == ["hooks.example", "other.example", "hooks.example"]
    assert len(server.requests) == 1


async def test_the_system_resolves_names_and_each_address_once() -> None:
    resolver = Resolver()
    assert await resolver("127.0.0.1", 80) == ("127.0.0.1",)
    addresses = await resolver("localhost", 80)
    assert len(set(addresses)) == len(addresses) > 0
    resolver.close()


async def test_sockets_of_this_machine_are_refused() -> None:
    with pytest.raises(httpcore2.ConnectError):
        await CheckedBackend(AddressPolicy(), local).connect_unix_socket("/run/docker.sock")


async def test_a_host_without_an_address_cannot_be_reached() -> None:
    async def nowhere(host: str, port: int) -> Sequence[str]:
        return ()

    with pytest.raises(httpcore2.ConnectError):
        await CheckedBackend(AddressPolicy(), nowhere).connect_tcp("h.example", 80)
