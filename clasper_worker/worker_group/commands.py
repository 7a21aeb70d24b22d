"""The command line of each worker process in a group."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence

from clasper_worker.concurrency.install import DEFAULT_CONCURRENCY

DEFAULT_NODE = "clasper@%h"
_NODE_OPTIONS = ("-n", "--hostname")


def split_node(options: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Take the node name (``-n``, ``--hostname``) out of the worker's options.

    Returns:
        The name, ``clasper@%h`` where none is given, and the other options in their order.
    """
    node, rest = DEFAULT_NODE, []
    left = iter(options)
    for option in left:
        name, equals, value = option.partition("=")
        if name in _NODE_OPTIONS:
            node = value if equals else next(left, DEFAULT_NODE)
        elif option.startswith("-n") and not option.startswith("--"):
            node = option[2:]
        else:
            rest.append(option)
    return node, tuple(rest)


def unique_node() -> str:
    """A node name that no other worker has, on this host or on one that has the same name.

    Remote control and monitors know workers by their names: of two with the same one, either's
    answers are taken for the other's.
    """
    name, _, host = DEFAULT_NODE.partition("@")
    return f"{name}-{secrets.token_hex(4)}@{host}"


def own_node(options: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """As `split_node`, with a unique name where none is given."""
    node, rest = split_node(options)
    return (unique_node() if len(rest) == len(options) else node), rest


def turns_in_flight(options: Sequence[str]) -> int | None:
    """``-c`` as the options give it, else the asyncio pool's default; None for another pool."""
    left = iter(options)
    found: int | None = DEFAULT_CONCURRENCY
    for option in left:
        name, equals, value = option.partition("=")
        if name in ("-P", "--pool") or (option.startswith("-P") and len(option) > 2):
            return None
        if name in ("-c", "--concurrency"):
            value = value if equals else next(left, "")
        elif option.startswith("-c") and not option.startswith("--"):
            value = option[2:]
        else:
            continue
        found = int(value) if value.isdigit() else None
    return found


def numbered(node: str, number: int) -> str:
    """The node name of one process of a group: ``clasper@%h`` is ``clasper-2@%h``."""
    name, at, host = node.partition("@")
    return f"{name}-{number}{at}{host}" if at else f"{name}-{number}@%h"


def worker_commands(
    processes: int, options: Sequence[str], cpus: Sequence[int] = ()
) -> tuple[tuple[str, ...], ...]:
    """One command a process: ``clasper worker`` for a single process, each under its own name.

    Args:
        processes: how many.
        options: the worker's.
        cpus: the CPUs to share out among them. Each process is kept on one if there are as many
            as processes; else they are left to the system.
    """
    node, rest = own_node(options)
    single = (sys.executable, "-m", "clasper_worker", "worker", "--processes", "1")
    places = [("--cpu", str(cpu)) for cpu in cpus] if len(cpus) == processes else [()] * processes
    return tuple(
        (*single, *place, *rest, "-n", numbered(node, number))
        for number, place in enumerate(places, 1)
    )
