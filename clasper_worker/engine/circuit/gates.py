"""The gates of one event loop, and what they know of the other workers' troubles.

A process learns of what others saw by reading all of its gates' states in one call to Redis: in
the background, at most once a second, and only while requests are made; every quarter of a second
while some of them wait. A request waits for that call only when nothing was read for five
seconds, so that the first requests of an idle worker know of an outage, too. A request to a
healthy host otherwise costs no call.

Where Redis cannot be reached the gates go on with what their own process sees, and try Redis again
every five seconds.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

import structlog

from clasper_worker.engine.circuit.breaker import Transition
from clasper_worker.engine.circuit.gate import HostGate
from clasper_worker.engine.circuit.policy import GatePolicy
from clasper_worker.engine.circuit.store import Change, Reading, StateStore, StoreError

log = structlog.get_logger(__name__)

REFRESH_SECONDS = 1.0
STALE_SECONDS = 1.25
_UNREACHABLE_SECONDS = 5.0
_STORE_TIMEOUT_SECONDS = 1.0
_PORTS = {"http": 80, "https": 443}


class Gates:
    """Makes one gate for each host, or host and model, and keeps them informed.

    Make it inside the event loop that will use it.

    Args:
        store: where the states lie.
        policy: the numbers of all gates.
        wall: seconds since the epoch, for as long as the store's clock was not read.
        jitter: gives 0 to 1.
    """

    def __init__(
        self,
        store: StateStore,
        policy: GatePolicy,
        *,
        wall: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.policy = policy
        self.jitter = jitter
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._offset = wall() - self._loop.time()
        self._gates: dict[str, HostGate] = {}
        self._read_at = float("-inf")
        self._unreachable_until = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def gate(self, url: str, model: str | None = None) -> HostGate:
        """The gate of a host, or of one model there: models have rate limits of their own."""
        name = host_name(url) if model is None else f"{host_name(url)}#{model}"
        found = self._gates.get(name)
        if found is None:
            found = self._gates[name] = HostGate(name, self)
            self._read_at = float("-inf")  # nothing is known of it yet
        return found

    def now(self) -> float:
        """The shared clock, as well as it is known; seconds."""
        return self._loop.time() + self._offset

    async def keep_informed(self) -> None:
        """Read the states if that is due; waits for it only if nothing was read for long."""
        age = self._loop.time() - self._read_at
        if age >= REFRESH_SECONDS:
            reading = self._start_reading()
            if age >= STALE_SECONDS:
                await asyncio.wait({reading})

    async def refresh(self, older_than: float) -> None:
        """Have states that were read no longer than so many seconds ago."""
        if self._loop.time() - self._read_at >= older_than:
            await asyncio.wait({self._start_reading()})

    @property
    def is_informed(self) -> bool:
        """Whether the states were read within the last second."""
        return self._loop.time() - self._read_at < REFRESH_SECONDS

    async def update(self, name: str, change: Transition) -> Change:
        """Change a gate's shared state.

        Raises:
            StoreError: it could not be reached.
        """
        if self._loop.time() < self._unreachable_until:
            raise StoreError("was not reachable a moment ago")
        try:
            async with asyncio.timeout(_STORE_TIMEOUT_SECONDS):
                found = await self._store.update(name, change)
        except (StoreError, TimeoutError) as exc:
            self._note_unreachable(exc)
            raise StoreError(str(exc)) from exc
        self._note_time(found.now)
        return found

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something of a gate's in the background, until `close`."""
        # In a context of its own: it serves many turns, its log lines are of none of them.
        task = self._loop.create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Stop what runs in the background; the store is not used any more."""
        self._unreachable_until = float("inf")
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start_reading(self) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._reading = self.spawn(self._read())
        return self._reading

    async def _read(self) -> None:
        if self._loop.time() < self._unreachable_until:
            self._read_at = self._loop.time()
            return
        gates = [(gate, gate.known.version) for gate in self._gates.values()]
        try:
            async with asyncio.timeout(_STORE_TIMEOUT_SECONDS):
                found: Reading = await self._store.read([gate.name for gate, _ in gates])
        except (StoreError, TimeoutError) as exc:
            self._note_unreachable(exc)
            self._read_at = self._loop.time()
            return
        self._note_time(found.now)
        self._read_at = self._loop.time()
        for (gate, version), state in zip(gates, found.states, strict=True):
            gate.known.learn(state, version)

    def _note_time(self, now: float) -> None:
        self._offset = now - self._loop.time()
        if self._unreachable_until > float("-inf"):
            self._unreachable_until = float("-inf")
            log.info("gate.shared_again")

    def _note_unreachable(self, exc: Exception) -> None:
        if self._unreachable_until == float("-inf"):
            log.warning("gate.not_shared", reason=str(exc) or type(exc).__name__)
        self._unreachable_until = self._loop.time() + _UNREACHABLE_SECONDS


def host_name(url: str) -> str:
    """Scheme, host and port of an address: nothing of it that is secret."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}:{parts.port or _PORTS.get(parts.scheme, 0)}"
