"""One attempt to deliver a webhook, and what its answer means."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import httpcore2
import httpx2

from clasper_worker import __version__
from clasper_worker.config.groups import WebhooksGroup
from clasper_worker.engine.circuit.retry_after import retry_after
from clasper_worker.engine.http.public_addresses import AddressPolicy
from clasper_worker.errors import (
    WebhookError,
    WebhookRefusedError,
    WebhookRejectedError,
    WebhookUnavailableError,
)
from clasper_worker.turn.webhook_target import Target, parse_target
from clasper_worker.webhooks.payload import Delivery
from clasper_worker.webhooks.signature import (
    OLD_SIGNATURE_HEADER,
    SIGNATURE_HEADER,
    sign,
    sign_plainly,
)
from clasper_worker.webhooks.ssrf_guard import CheckedBackend, Resolve, Resolver

_TIMEOUT_SECONDS = 10.0
_DRAIN_SECONDS = 1.0
_DRAIN_BYTES = 16 * 1024
_DAY_SECONDS = 86_400.0
_TRANSIENT_STATUSES = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Answer:
    """A receiver's answer.

    Attributes:
        status: of HTTP.
        retry_after: the seconds that it asks to wait, if it does.
    """

    status: int
    retry_after: float | None = None


class WebhookSender:
    """Delivers webhooks: one POST each, to checked addresses, following nothing.

    Each attempt has a connection of its own. Redirects are not followed, proxies of the
    environment not used, cookies not kept, the answer's body not looked at.

    Args:
        policy: where webhooks may go.
        resolve: gives a host's addresses.
        ssl_context: whom to trust; the system's certificates when omitted.
        timeout_seconds: for one attempt, from resolving the name to the answer's headers.
        clock: the time to sign with, in seconds since 1970.
        plain_signature: whether to sign as the original does.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        resolve: Resolve,
        *,
        ssl_context: ssl.SSLContext | None = None,
        timeout_seconds: float = _TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.time,
        plain_signature: bool = False,
    ) -> None:
        self._backend = CheckedBackend(policy, resolve)
        self._resolve = resolve
        self._ssl = ssl_context or httpx2.create_ssl_context()
        self._timeout = timeout_seconds
        self._clock = clock
        self._plain = plain_signature

    @classmethod
    def from_settings(cls, settings: WebhooksGroup) -> Self:
        """A sender by ``CLASPER_WEBHOOK_*``, with the system's name resolution."""
        policy = AddressPolicy(
            allow_private=settings.clasper_webhook_allow_private,
            allowed_hosts=settings.clasper_webhook_allowed_hosts,
        )
        plain = settings.clasper_webhook_signature == "plain"
        return cls(policy, Resolver(), plain_signature=plain)

    async def deliver(self, delivery: Delivery) -> Answer:
        """Make one attempt.

        Returns:
            The answer, which is a success.

        Raises:
            WebhookRefusedError: it is not to be sent there.
            WebhookUnavailableError: another attempt may succeed; ``details["retry_after"]`` is
                the pause that the receiver asked for, if it did.
            WebhookRejectedError: no other attempt would.
        """
        target = parse_target(delivery.webhook.url)
        try:
            answer = await self._post(target, delivery)
        except TimeoutError as exc:
            raise _unavailable(target, f"did not answer in {self._timeout:g} s") from exc
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as exc:
            raise _unavailable(target, "could not be reached") from exc
        except (
            httpcore2.NetworkError,
            httpcore2.TimeoutException,
            httpcore2.RemoteProtocolError,
        ) as exc:
            raise _unavailable(target, "did not keep the connection") from exc
        except httpcore2.ProtocolError:
            # Its text quotes what could not be sent, so it is not kept.
            raise WebhookRefusedError(
                f"The webhook cannot be sent to {target.host} as it is", {"host": target.host}
            ) from None
        return _judged(target, answer)

    async def close(self) -> None:
        """Let go of the threads that resolve names."""
        if isinstance(self._resolve, Resolver):
            self._resolve.close()

    async def _post(self, target: Target, delivery: Delivery) -> Answer:
        body = delivery.body.encode("ascii")
        url = httpcore2.URL(
            scheme=target.scheme, host=target.host, port=target.port, target=target.path
        )
        async with (
            asyncio.timeout(self._timeout) as limit,
            httpcore2.AsyncConnectionPool(
                ssl_context=self._ssl,
                network_backend=self._backend,
                max_connections=1,
                max_keepalive_connections=0,
            ) as pool,
            pool.stream(
                "POST", url, headers=self._headers(target, delivery, body), content=body
            ) as response,
        ):
            limit.reschedule(None)  # the answer is here: what follows does not change it
            await _drain(response)
            return _answer(response)

    def _headers(self, target: Target, delivery: Delivery, body: bytes) -> list[tuple[str, str]]:
        own = {
            "Host": target.host_header,
            "Content-Type": "application/json",
            "User-Agent": f"clasper-worker/{__version__}",
            "X-Clasper-Event": delivery.event,
            "X-Clasper-Delivery": delivery.delivery_id,
        }
        secret = delivery.webhook.secret
        if secret is not None and self._plain:
            signature = sign_plainly(secret.get_secret_value(), body)
            own |= {SIGNATURE_HEADER: signature, OLD_SIGNATURE_HEADER: signature}
        elif secret is not None:
            own[SIGNATURE_HEADER] = sign(secret.get_secret_value(), body, int(self._clock()))
        given = delivery.webhook.headers
        names = {name.lower() for name in given}
        kept = [(name, value) for name, value in own.items() if name.lower() not in names]
        return [*kept, *given.items()]


async def _drain(response: httpcore2.Response) -> None:
    """Read a short body to its end: to close on a server that is still writing upsets it."""
    received = 0
    with suppress(httpcore2.NetworkError, httpcore2.ProtocolError, TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for chunk in response.aiter_stream():
                received += len(chunk)
                if received > _DRAIN_BYTES:
                    return


def _answer(response: httpcore2.Response) -> Answer:
    values = (value for name, value in response.headers if name.lower() == b"retry-after")
    value = next(values, None)
    asked = (
        None if value is None else retry_after({"retry-after": value.decode("ascii", "replace")})
    )
    return Answer(response.status, None if asked is None else min(asked, _DAY_SECONDS))


def _judged(target: Target, answer: Answer) -> Answer:
    status = answer.status
    if 200 <= status < 300:
        return answer
    if status in _TRANSIENT_STATUSES or status >= 500:
        raise _unavailable(target, f"answered {status}", answer)
    hint = "; redirects are not followed" if 300 <= status < 400 else ""
    raise WebhookRejectedError(
        f"The webhook's receiver at {target.host} answered {status}{hint}",
        {"host": target.host, "status": status},
    )


def _unavailable(target: Target, what: str, answer: Answer | None = None) -> WebhookError:
    details: dict[str, str | int | float] = {"host": target.host}
    if answer is not None:
        details["status"] = answer.status
        if answer.retry_after is not None:
            details["retry_after"] = answer.retry_after
    return WebhookUnavailableError(f"The webhook's receiver at {target.host} {what}", details)
