"""A host with good and bad times, and workers that share what they know of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from clasper_worker.engine.circuit.breaker import GateState, Transition
from clasper_worker.engine.circuit.calls import (
    NO_ANSWER,
    Pace,
    Verdict,
    call_persistently,
    verdict_on_status,
)
from clasper_worker.engine.circuit.gate import HostGate
from clasper_worker.engine.circuit.gates import Gates
from clasper_worker.engine.circuit.policy import GatePolicy, Patience
from clasper_worker.engine.circuit.store import Change, Reading, StoreError
from clasper_worker.testing import MemoryStateStore

URL = "http://host.test"
_PACE = Pace(attempts=4, first_pause=0.5, longest_pause=8.0)
Mood = Literal["well", "refuses", "fails", "limits", "limits-named", "hangs"]


class HostError(Exception):
    """What the simulated host answers in bad times."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__("trouble")
        self.verdict = verdict


def judge(exc: Exception) -> Verdict:
    assert isinstance(exc, HostError)
    return exc.verdict


@dataclass
class Host:
    """Answers according to its mood and keeps a record.

    Attributes:
        seconds: how long an answer takes.
        named: the Retry-After of the mood "limits-named".
        calls: when requests came, and whether they were probes.
    """

    mood: Mood = "well"
    seconds: float = 0.1
    named: float = 20.0
    calls: list[float] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    silence_from: float = float("inf")
    silence_until: float = 0.0

    async def answer(self) -> str:
        loop = asyncio.get_running_loop()
        self.calls.append(loop.time())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            mood = self.mood
            await asyncio.sleep(30.0 if mood == "hangs" else self.seconds)
            if mood in {"refuses", "hangs"}:
                raise HostError(NO_ANSWER)
            if mood == "fails":
                raise HostError(verdict_on_status(503, None, passing=True))
            if mood == "limits":
                raise HostError(verdict_on_status(429, None, passing=True))
            if mood == "limits-named":
                now = loop.time()
                if now >= self.silence_until:
                    self.silence_from = now
                self.silence_until = now + self.named
                raise HostError(verdict_on_status(429, self.named, passing=True))
            return "answer"
        finally:
            self.at_once -= 1


class SharedStore:
    """A memory store that takes time, counts its calls, and may be out of reach."""

    def __init__(self) -> None:
        self._memory = MemoryStateStore(asyncio.get_running_loop().time)
        self.reachable = True
        self.reads = 0
        self.updates = 0

    async def read(self, names: Sequence[str]) -> Reading:
        self.reads += 1
        await self._trip()
        reading = await self._memory.read(names)
        await self._trip()
        return reading

    async def update(self, name: str, change: Transition) -> Change:
        self.updates += 1
        await self._trip()
        found = await self._memory.update(name, change)
        await self._trip()
        return found

    async def peek(self, name: str) -> GateState:
        return (await self._memory.read([name])).states[0]

    async def _trip(self) -> None:
        await asyncio.sleep(0.001)
        if not self.reachable:
            raise StoreError("down")


class Worker:
    """One worker process: gates of its own."""

    def __init__(self, store: SharedStore, policy: GatePolicy | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.gates = Gates(store, policy or GatePolicy(), wall=loop.time, jitter=lambda: 0.5)
        self.gate: HostGate = self.gates.gate(URL)

    async def turn(self, host: Host, patience: Patience | None = None) -> str:
        """One request, as our clients make it."""
        patience = patience or self.gate.patience()
        return await call_persistently(self.gate, patience, host.answer, judge, _PACE)


async def at(seconds: float, host: Host, mood: Mood) -> None:
    """Have the host change its mood after so many seconds."""
    await asyncio.sleep(seconds)
    host.mood = mood
