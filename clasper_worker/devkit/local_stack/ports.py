"""Choosing ports on the loopback interface, without losing them before they are used."""

from __future__ import annotations

import socket
import sys
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Self

from clasper_worker.errors import StackError

LOOPBACK = "127.0.0.1"


class PortReservations:
    """Ports chosen for processes that have not bound them yet.

    On Linux each is held until :meth:`release`, against two kinds of rivals. A bound socket that
    does not listen keeps the system from giving the port to somebody else, while a server that
    sets ``SO_REUSEADDR`` (all of ours do) may still take it. And since that holds for the servers
    of another stack too, a socket with the port's name in the abstract namespace tells stacks
    apart that start at the same time. Elsewhere neither works, and a small race remains.
    """

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def choose(self, preferred: int, *, required: bool = False, purpose: str = "a server") -> int:
        """A port on 127.0.0.1 that nothing listens on.

        Args:
            preferred: taken if it is free; 0 for any free port.
            required: whether another port will not do, as when the operator asked for this one.
            purpose: what the port is for, for the error.

        Raises:
            StackError: the port is required and in use, or there is none at all.
        """
        if preferred and not is_listening(preferred) and self._hold(preferred):
            return preferred
        if preferred and required:
            raise StackError(
                f"Port {preferred} for {purpose} is in use. Stop what listens there, or choose "
                f"another port (0 for any free one).",
                {"port": preferred, "purpose": purpose},
            )
        port = self._hold(0)
        if not port:
            raise StackError(f"No free port on {LOOPBACK} for {purpose}.", {"purpose": purpose})
        return port

    def release(self) -> None:
        """Let go of every held port; its server has it now, or never will."""
        for holder in self._held:
            holder.close()
        self._held.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def _hold(self, port: int) -> int:
        """Bind the port and keep it; its number, or 0 where that cannot be done."""
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if port:  # a restart must get its port back although old connections linger
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind((LOOPBACK, port))
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            number: int = holder.getsockname()[1]
            if sys.platform == "linux":
                self._held.append(_name_as_ours(number))
        except OSError:
            holder.close()
            return 0
        if sys.platform == "linux":
            self._held.append(holder)
        else:  # BSD refuses the server's bind while ours stands
            holder.close()
        return number


def _name_as_ours(port: int) -> socket.socket:
    """Take the port's name, which is free again when the socket is closed.

    Raises:
        OSError: another stack, or this one, has it.
    """
    name = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        name.bind(f"\0clasper-port-{port}")
    except OSError:
        name.close()
        raise
    return name


def is_listening(port: int) -> bool:
    """Whether something accepts connections on this loopback port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class PortWishes:
    """Ports that the operator asked for: 0 for any free one, None for no wish."""

    broker: int | None = None
    backend: int | None = None
    model: int | None = None
    shim: int | None = None
    flower: int | None = None


@dataclass(frozen=True, slots=True)
class StackPorts:
    """The ports on 127.0.0.1; 0 where the stack has no such server."""

    broker: int = 0
    backend: int = 0
    model: int = 0
    shim: int = 0
    flower: int = 0


USUAL_PORTS = StackPorts(broker=6379, backend=9001, model=9100, shim=8081, flower=5555)


def choose_ports(
    wishes: PortWishes, wanted: Collection[str], reservations: PortReservations
) -> StackPorts:
    """Choose and hold a port for each server that is wanted, by the names of the fields.

    Raises:
        StackError: a port that was asked for is in use.
    """
    usual, asked = asdict(USUAL_PORTS), asdict(wishes)
    chosen = {}
    for name in sorted(wanted, key=lambda name: not asked[name]):  # first what must be as it is
        wish = asked[name]
        preferred = usual[name] if wish is None else wish
        chosen[name] = reservations.choose(preferred, required=bool(wish), purpose=f"the {name}")
    return StackPorts(**chosen)


def moved_ports(wishes: PortWishes, ports: StackPorts) -> Iterator[str]:
    """A line for each server that is not at its usual port although nobody asked for another."""
    asked, chosen = asdict(wishes), asdict(ports)
    for name, usual in asdict(USUAL_PORTS).items():
        if asked[name] is None and chosen[name] not in (0, usual):
            yield f"port {usual} is in use: the {name} takes {chosen[name]}"
