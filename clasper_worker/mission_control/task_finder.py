"""Find a user's task by its title, or create it: once, however many turns ask at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from clasper_worker.errors import BackendConflictError
from clasper_worker.mission_control.client import AgentBackend
from clasper_worker.mission_control.idempotency import task_title_key
from clasper_worker.mission_control.models import Task

Lock = Callable[[str], AbstractAsyncContextManager[object]]
_CACHE_TTL_SECONDS = 30.0
_MAX_CACHED = 10_000


@dataclass(frozen=True, slots=True)
class FoundTask:
    """A task and whether this call created it."""

    task: Task
    created: bool


class TaskFinder:
    """Finds or creates tasks by (user, title).

    A task just found is remembered for half a minute. One not found is created under a lock of
    that user and title, after a second look inside the lock; the idempotency key is derived from
    both as well, so that even without the lock a contract-abiding backend makes one task.

    Args:
        lock: makes a named lock shared by all workers.
        clock: monotonic seconds.
    """

    def __init__(self, lock: Lock, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = lock
        self._clock = clock
        self._cache: dict[tuple[str, str], tuple[Task, float]] = {}

    async def find_or_create(
        self,
        backend: AgentBackend,
        title: str,
        *,
        description: str | None = None,
        status: str = "in_progress",
        metadata: Mapping[str, Any] | None = None,
    ) -> FoundTask:
        """The user's task of exactly this title (surrounding white space aside).

        Raises:
            BackendError: the backend failed, or it says that the key was used while no such task
                is to be found.
        """
        title = title.strip()
        user_id = backend.identity.user_id
        found = await self._look_up(backend, title)
        if found is not None:
            return FoundTask(found, created=False)
        key = task_title_key(user_id, title)
        async with self._lock(key):
            found = await self._look_up(backend, title)
            if found is not None:
                return FoundTask(found, created=False)
            try:
                task = await backend.create_task(
                    title=title,
                    description=description,
                    status=status,
                    metadata=metadata,
                    idempotency_key=key,
                )
            except BackendConflictError:
                # Somebody made it with another description: that one is the task.
                found = await _find(backend, title)
                if found is None:
                    raise
                return FoundTask(self._remember(user_id, title, found), created=False)
        return FoundTask(self._remember(user_id, title, task), created=True)

    def forget(self, user_id: str, title: str) -> None:
        """Drop a remembered task that turned out to be gone."""
        self._cache.pop((user_id, title.strip()), None)

    async def _look_up(self, backend: AgentBackend, title: str) -> Task | None:
        user_id = backend.identity.user_id
        remembered = self._cache.get((user_id, title))
        if remembered is not None and remembered[1] > self._clock():
            return remembered[0]
        found = await _find(backend, title)
        return None if found is None else self._remember(user_id, title, found)

    def _remember(self, user_id: str, title: str, task: Task) -> Task:
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        self._cache[user_id, title] = (task, self._clock() + _CACHE_TTL_SECONDS)
        return task


async def _find(backend: AgentBackend, title: str) -> Task | None:
    async for task in backend.tasks(title=title):
        if task.title.strip() == title:
            return task
    return None
