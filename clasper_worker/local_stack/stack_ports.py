"""Which port each server of the stack gets: the one asked for, the usual one, or a free one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass

from clasper_worker.local_stack.ports import PortReservations


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
