"""Which port each server of the stack gets."""

import socket
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from clasper_worker.devkit.local_stack.ports import (
    LOOPBACK,
    USUAL_PORTS,
    PortReservations,
    PortWishes,
    StackPorts,
    choose_ports,
    moved_ports,
)
from clasper_worker.errors import StackError

ALL = frozenset(asdict(USUAL_PORTS))
ANY = PortWishes(broker=0, backend=0, model=0, shim=0, flower=0)


@pytest.fixture
def reservations() -> Iterator[PortReservations]:
    with PortReservations() as ports:
        yield ports


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server((LOOPBACK, 0)) as server:
        yield server.getsockname()[1]


def test_zero_means_any_free_port(reservations: PortReservations) -> None:
    chosen = asdict(choose_ports(ANY, ALL, reservations))

    assert 0 not in chosen.values()
    assert len(set(chosen.values())) == len(ALL)


def test_servers_that_the_stack_does_not_have_get_no_port(reservations: PortReservations) -> None:
    chosen = choose_ports(ANY, {"shim"}, reservations)

    assert chosen == StackPorts(shim=chosen.shim)
    assert chosen.shim


def test_a_port_that_was_asked_for_is_not_replaced(
    reservations: PortReservations, taken: int
) -> None:
    with pytest.raises(StackError, match=f"Port {taken} for the flower is in use"):
        choose_ports(PortWishes(flower=taken), {"flower"}, reservations)


def test_a_server_moved_from_its_usual_port_is_told() -> None:
    moved = moved_ports(PortWishes(shim=9999), StackPorts(broker=40001, shim=9999, backend=9001))

    assert list(moved) == ["port 6379 is in use: the broker takes 40001"]
