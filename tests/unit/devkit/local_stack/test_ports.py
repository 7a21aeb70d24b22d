"""Choosing and holding ports."""

import socket
import sys

import pytest

from clasper_worker.devkit.local_stack.ports import LOOPBACK, PortReservations, is_listening
from clasper_worker.errors import StackError


def listen(port: int = 0) -> socket.socket:
    """Listen as a server does: with SO_REUSEADDR."""
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((LOOPBACK, port))
    server.listen()
    return server


def test_a_free_port_is_taken_as_preferred() -> None:
    with PortReservations() as earlier:
        free = earlier.choose(0)

    with PortReservations() as ports:
        assert ports.choose(free) == free


def test_a_port_in_use_is_replaced_by_a_free_one() -> None:
    with listen() as server, PortReservations() as ports:
        taken = server.getsockname()[1]

        chosen = ports.choose(taken)

        assert chosen not in (0, taken)
        assert not is_listening(chosen)


def test_a_required_port_in_use_is_an_error_that_names_it() -> None:
    with listen() as server, PortReservations() as ports:
        taken = server.getsockname()[1]

        with pytest.raises(StackError, match=f"{taken} for the shim is in use"):
            ports.choose(taken, required=True, purpose="the shim")


def test_the_server_for_which_a_port_is_held_can_listen_on_it() -> None:
    with PortReservations() as ports:
        port = ports.choose(0)

        with listen(port):
            assert is_listening(port)


def test_one_port_is_never_given_out_twice() -> None:
    with PortReservations() as ports:
        first = ports.choose(0)

        assert ports.choose(first) != first


@pytest.mark.skipif(sys.platform != "linux", reason="ports can be held on Linux alone")
def test_two_stacks_that_start_at_once_get_different_ports() -> None:
    with PortReservations() as one, PortReservations() as other:
        first = one.choose(0)

        assert other.choose(first) != first
        with pytest.raises(StackError, match="in use"):
            other.choose(first, required=True)


@pytest.mark.skipif(sys.platform != "linux", reason="ports can be held on Linux alone")
def test_a_held_port_goes_to_nobody_else_until_it_is_released() -> None:
    with PortReservations() as ports, socket.socket() as other:
        port = ports.choose(0)

        with pytest.raises(OSError, match="in use"):
            other.bind((LOOPBACK, port))
        ports.release()
        other.bind((LOOPBACK, port))


def test_held_ports_differ_from_each_other() -> None:
    with PortReservations() as ports:
        chosen = [ports.choose(0) for _ in range(50)]

        assert len(set(chosen)) == 50
