"""Connecting to addresses that were checked: resolve once, check, connect to just those.

The check sits where the HTTP client opens its connections, below everything that knows of names,
so that nothing can come between it and the connection, nor go around it.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence

import httpcore2

from clasper_worker.engine.http.public_addresses import AddressPolicy
from clasper_worker.engine.pool.threads import ThreadCrew

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the addresses of a host; raises OSError where there are none."""

_RESOLVING_THREADS = 8
_MAX_ADDRESSES = 4  # tried, of those that a host has
_CONNECT_SECONDS = 8.0  # shared among them


class Resolver:
    """The system's name resolution, in threads of its own.

    Of its own, since a name server chosen by whoever named the webhook may take its time, and the
    loop's threads resolve the names that turns need.
    """

    def __init__(self) -> None:
        self._crew = ThreadCrew("clasper-webhook-dns", _RESOLVING_THREADS)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """The host's addresses in the system's order of preference, each once."""
        found = await self._crew.call(_resolve, host, port)
        return tuple(dict.fromkeys(found))

    def close(self) -> None:
        """Let the threads end when they are done."""
        self._crew.close(0.0)


def _resolve(host: str, port: int) -> list[str]:
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in answers]


class CheckedBackend(httpcore2.AsyncNetworkBackend):
    """Opens connections for an HTTP client, to addresses that the policy lets pass.

    TLS and the ``Host`` header stay the client's: they go by the name, as they should.
    """

    def __init__(self, policy: AddressPolicy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface's
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of the host that answers.

        Raises:
            WebhookRefusedError: one of its addresses may not get webhooks.
            httpcore2.ConnectError: it has none, or none of them answers.
            httpcore2.ConnectTimeout: the last one tried does not answer in time.
        """
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as exc:
            raise httpcore2.ConnectError("the host's name cannot be resolved") from exc
        self._policy.check(host, addresses)
        tried = addresses[:_MAX_ADDRESSES]
        share = _CONNECT_SECONDS / max(1, len(tried))
        failure: Exception = httpcore2.ConnectError("the host has no address")
        for address in tried:
            try:
                return await self._network.connect_tcp(
                    address,
                    port,
                    timeout=share if timeout is None else min(share, timeout),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as exc:
                failure = exc
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface's
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Refuse: a webhook goes to a host."""
        del path, timeout, socket_options
        raise httpcore2.ConnectError("webhooks do not go to sockets of this machine")
