"""Opening the socket that a server listens on, or telling why that cannot be done."""

from __future__ import annotations

import errno
import ipaddress
import socket

from clasper_worker.errors import ConfigurationError


def listen_on(host: str, port: int, *, host_name: str, port_name: str) -> socket.socket:
    """A socket that is bound, so that whoever comes second hears of it at once.

    Args:
        host: a name or an address.
        port: 0 for any that is free.
        host_name: how the operator sets the host, for the error.
        port_name: how the operator sets the port.

    Raises:
        ConfigurationError: it cannot be; says why, and what to do.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # A restart gets its port back although old connections linger.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2048)
        except OSError:
            listener.close()
            raise
    except OSError as exc:
        raise ConfigurationError(
            f"Cannot listen on {host}, port {port}: {_reason(exc)}. Choose another {port_name},"
            f" where 0 is any that is free, or another {host_name}.",
            {"variable": port_name, "port": port},
        ) from exc
    listener.set_inheritable(True)
    return listener


def is_loopback(host: str) -> bool:
    """Whether an address to bind to can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reason(exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        return "it is in use; stop what listens there"
    return exc.strerror or type(exc).__name__


def url_of(listener: socket.socket) -> str:
    """Where the socket is reached, without a path."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
