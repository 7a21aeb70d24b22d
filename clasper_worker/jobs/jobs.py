"""What the jobs of one event loop share: the composition root of this package."""

from __future__ import annotations

from typing import Self

from clasper_worker.client import ClasperClient
from clasper_worker.jobs.acknowledge import Acknowledgements
from clasper_worker.jobs.agents import Roster
from clasper_worker.jobs.dispatch import Dispatcher, DispatchRules
from clasper_worker.jobs.fan_out import FanOut
from clasper_worker.jobs.queue import CeleryQueue
from clasper_worker.jobs.slots import Slots
from clasper_worker.mission_control.internal import InternalBackend
from clasper_worker.settings import Settings
from clasper_worker.state import State, redis_client


class Jobs:
    """The jobs' connections. Make it inside the loop that will use it, with `open`.

    Attributes:
        settings: the operator's.
        slots: notes and locks that all workers share.
        queue: where jobs enqueue others.
        acknowledgements: of notifications.
        fan_out: of heartbeats and standups.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._redis = redis_client(settings.redis_url, settings)
        self._state = State(self._redis)
        self.slots = Slots(self._state)
        self.queue = CeleryQueue(ClasperClient.from_settings(settings))
        self.fan_out = FanOut(self.slots, self.queue)
        self._roster: Roster | None = None
        self.acknowledgements = Acknowledgements(self.slots, self.queue)

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Wire everything up. Nothing is connected to yet."""
        return cls(settings)

    def dispatcher(self, backend: InternalBackend) -> Dispatcher:
        """A dispatcher of this backend's notifications."""
        rules = DispatchRules.from_settings(self.settings)
        return Dispatcher(backend, self.slots, self.queue, rules)

    def roster(self, backend: InternalBackend) -> Roster:
        """The agents, as the settings or this backend name them; always the same one."""
        self._roster = self._roster or Roster(self.settings, backend)
        return self._roster

    async def close(self) -> None:
        """Close the connections."""
        self.queue.close()
        await self._state.aclose()
        await self._redis.aclose()
