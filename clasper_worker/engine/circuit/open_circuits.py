"""Which hosts all workers leave alone at the moment, for whoever asks from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clasper_worker.engine.circuit.breaker import decode
from clasper_worker.engine.circuit.store import PREFIX

_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class OpenCircuit:
    """One host that is left alone.

    Attributes:
        host: its name; of a model, ``host#model``.
        why: ``down``: only one request probes it; ``rate_limited``: it asked for silence.
        seconds: until the next probe, or the end of the silence.
    """

    host: str
    why: str
    seconds: float


def read_open_circuits(client: Any) -> tuple[OpenCircuit, ...]:
    """All of them, by name.

    Args:
        client: of our own state's Redis.

    Raises:
        redis.RedisError: it does not answer.
    """
    names = sorted(client.scan_iter(match=f"{PREFIX}*", count=_AT_ONCE))
    if not names:
        return ()
    seconds, microseconds = client.time()
    now = seconds + microseconds / 1e6
    found = []
    for name, text in zip(names, client.mget(names), strict=True):
        state = decode(text)
        host = name.decode("utf-8", "replace").removeprefix(PREFIX)
        if state.is_open:
            found.append(OpenCircuit(host, "down", max(state.open_until - now, 0.0)))
        elif state.is_paused(now):
            found.append(OpenCircuit(host, "rate_limited", state.paused_until - now))
    return tuple(found)
