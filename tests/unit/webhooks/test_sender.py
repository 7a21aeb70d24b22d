"""One attempt: what is sent, where it may go, and what the answers mean."""

import socket
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from clasper_worker.engine.http.public_addresses import AddressPolicy
from clasper_worker.errors import WebhookRefusedError, WebhookRejectedError, WebhookUnavailableError
from clasper_worker.webhooks.payload import Delivery
from clasper_worker.webhooks.sender import WebhookSender
from clasper_worker.webhooks.signature import verify_signature
from clasper_worker.webhooks.ssrf_guard import Resolver
from tests.unit.webhooks.conftest import OK, receiver

DeliveryTo = Callable[..., Delivery]
NOW = 1_760_000_000


def resolves_to(*addresses: str) -> Callable[[str, int], Any]:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


def sender(*addresses: str, **options: Any) -> WebhookSender:
    policy = AddressPolicy(allow_private=True)
    resolve = resolves_to(*(addresses or ("127.0.0.1",)))
    return WebhookSender(policy, resolve, clock=lambda: NOW, **options)


def answering(status: str, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Length: 0", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def test_the_request_is_signed_and_says_what_it_is(delivery_to: DeliveryTo) -> None:
    async with receiver() as server:
        delivery = delivery_to(
            f"http://hooks.example:{server.port}/a?b=c",
            secret="s3cret",
            headers={"Authorization": "Bearer x", "User-Agent": "mine"},
        )
        answer = await sender().deliver(delivery)
    (request,) = server.requests
    assert answer.status == 200
    assert request.line == "POST /a?b=c HTTP/1.1"
    assert request.body == b'{"event":"agent.completed"}'
    assert request.headers["Host"] == f"hooks.example:{server.port}"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["X-Clasper-Event"] == "agent.completed"
    assert request.headers["X-Clasper-Delivery"] == "d-1"
    assert request.headers["Authorization"] == "Bearer x"
    assert request.headers["User-Agent"] == "mine"
    signature = request.headers["X-Clasper-Signature"]
    assert verify_signature("s3cret", request.body, signature, now=NOW)


async def test_without_a_secret_there_is_no_signature(delivery_to: DeliveryTo) -> None:
    async with receiver() as server:
        await sender().deliver(delivery_to(f"http://hooks.example:{server.port}/"))
    assert "X-Clasper-Signature" not in server.requests[0].headers


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "202 Accepted", "204 No Content"])
async def test_any_2xx_is_success(delivery_to: DeliveryTo, status: str) -> None:
    async with receiver(answering(status)) as server:
        answer = await sender().deliver(delivery_to(f"http://h.example:{server.port}/"))
    assert answer.status == int(status[:3])


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
async def test_some_answers_ask_for_another_attempt(delivery_to: DeliveryTo, status: int) -> None:
    async with receiver(answering(f"{status} No", "Retry-After: 7")) as server:
        with pytest.raises(WebhookUnavailableError) as caught:
            await sender().deliver(delivery_to(f"http://h.example:{server.port}/"))
    assert caught.value.details == {"host": "h.example", "status": status, "retry_after": 7.0}


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 403, 404, 410])
async def test_other_answers_are_final_and_redirects_are_not_followed(
    delivery_to: DeliveryTo, status: int
) -> None:
    async with receiver() as elsewhere:
        location = f"Location: http://127.0.0.1:{elsewhere.port}/"
        async with receiver(answering(f"{status} No", location)) as server:
            with pytest.raises(WebhookRejectedError) as caught:
                await sender().deliver(delivery_to(f"http://h.example:{server.port}/"))
    assert caught.value.details == {"host": "h.example", "status": status}
    assert elsewhere.connections == 0


async def test_no_answer_in_time_is_passing(delivery_to: DeliveryTo) -> None:
    async with receiver(None) as server:
        with pytest.raises(WebhookUnavailableError, match="did not answer in"):
            await sender(timeout_seconds=0.2).deliver(
                delivery_to(f"http://h.example:{server.port}/")
            )


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nx"])
async def test_a_broken_answer_is_passing(delivery_to: DeliveryTo, answer: bytes) -> None:
    async with receiver(answer) as server:
        with pytest.raises(WebhookUnavailableError):
            await sender(timeout_seconds=0.3).deliver(
                delivery_to(f"http://h.example:{server.port}/")
            )


async def test_nobody_there_is_passing(delivery_to: DeliveryTo) -> None:
    with socket.socket() as taken:  # bound, and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(WebhookUnavailableError, match="could not be reached"):
            await sender().deliver(delivery_to(f"http://h.example:{taken.getsockname()[1]}/"))


async def test_a_name_that_nobody_knows_is_passing(delivery_to: DeliveryTo) -> None:
    async def unknown(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror("Name or service not known")

    with pytest.raises(WebhookUnavailableError, match="could not be reached"):
        await WebhookSender(AddressPolicy(), unknown).deliver(delivery_to("http://h.example/"))


async def test_an_endless_body_is_left_unread(delivery_to: DeliveryTo) -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 100_000
    async with receiver(endless) as server:
        answer = await sender().deliver(delivery_to(f"http://h.example:{server.port}/"))
    assert answer.status == 200


async def test_the_next_address_is_tried_where_one_does_not_answer(
    delivery_to: DeliveryTo,
) -> None:
    async with receiver(host="127.0.0.3") as server:
        answer = await sender("127.0.0.2", "127.0.0.3").deliver(
            delivery_to(f"http://h.example:{server.port}/")
        )
    assert answer.status == 200


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{}/", "http://localhost:{}/", "http://[::ffff:127.0.0.1]:{}/"]
)
async def test_loopback_is_refused_by_default_and_never_connected_to(
    delivery_to: DeliveryTo, url: str
) -> None:
    resolver = Resolver()
    try:
        async with receiver() as server:
            with pytest.raises(WebhookRefusedError):
                await WebhookSender(AddressPolicy(), resolver).deliver(
                    delivery_to(url.format(server.port))
                )
    finally:
        resolver.close()
    assert server.connections == 0


async def test_one_private_address_among_public_ones_is_enough_to_refuse(
    delivery_to: DeliveryTo,
) -> None:
    async with receiver() as server:
        refusing = WebhookSender(AddressPolicy(), resolves_to("8.8.8.8", "127.0.0.1"))
        with pytest.raises(WebhookRefusedError):
            await refusing.deliver(delivery_to(f"http://h.example:{server.port}/"))
    assert server.connections == 0


async def test_a_name_whose_address_changes_after_the_check_is_not_followed(
    delivery_to: DeliveryTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that answers each question otherwise; 127.0.0.2 stands for a public address."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def lying(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        if host != "rebinding.example":
            return real(host, port, *rest, **options)
        asked.append(host)
        address = "127.0.0.2" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", lying)
    resolver = Resolver()
    policy = AddressPolicy(is_public=lambda address: address == "127.0.0.2")
    async with receiver(host="127.0.0.1") as inner:
        url = f"http://rebinding.example:{inner.port}/"
        async with receiver(host="127.0.0.2", port=inner.port) as public:
            careful = WebhookSender(policy, resolver)
            assert (await careful.deliver(delivery_to(url))).status == 200
            assert (len(asked), public.connections, inner.connections) == (1, 1, 0)
            # The next attempt asks again, is told of the inner address, and goes nowhere.
            with pytest.raises(WebhookRefusedError):
                await careful.deliver(delivery_to(url))
            assert (len(asked), public.connections, inner.connections) == (2, 1, 0)
    await careful.close()


async def test_proxies_of_the_environment_are_not_used(
    delivery_to: DeliveryTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiver() as proxy, receiver() as server:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        await sender().deliver(delivery_to(f"http://h.example:{server.port}/"))
    assert (proxy.connections, server.connections) == (0, 1)


async def test_a_connection_serves_one_attempt(delivery_to: DeliveryTo) -> None:
    async with receiver(OK) as server:
        one = sender()
        for _ in range(2):
            await one.deliver(delivery_to(f"http://h.example:{server.port}/"))
    assert server.connections == 2


async def test_no_error_shows_the_secret_the_headers_or_the_path(delivery_to: DeliveryTo) -> None:
    async with receiver(answering("500 No")) as server:
        delivery = delivery_to(
            f"http://h.example:{server.port}/hunter2",
            secret="hunter2",
            headers={"Authorization": "hunter2"},
        )
        with pytest.raises(WebhookUnavailableError) as caught:
            await sender().deliver(delivery)
    assert "hunter2" not in f"{caught.value!r} {caught.value.details} {delivery!r}"
