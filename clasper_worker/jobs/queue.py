"""How jobs enqueue others, without blocking the event loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from clasper_worker.broker.headers import NOTIFICATION_HEADER
from clasper_worker.client import ClasperClient
from clasper_worker.concurrency.threads import ThreadCrew


@dataclass(frozen=True, slots=True)
class Job:
    """A Celery task to enqueue.

    Attributes:
        task: its name.
        arguments: its keyword arguments.
        queue: where to.
        job_id: its id; a new one where None.
        keeps_result: whether anybody may ask for its result.
        mark: which notification it answers, or why it answers none (`jobs.notification`).
    """

    task: str
    arguments: Mapping[str, Any] = field(repr=False)
    queue: str
    job_id: str | None = None
    keeps_result: bool = True
    mark: Mapping[str, Any] | None = None


class JobQueue(Protocol):
    """Enqueues jobs."""

    async def put(self, jobs: Sequence[Job]) -> None:
        """Enqueue the jobs in this order.

        Raises:
            StateUnavailableError: the broker does not take them; some may have been.
        """
        ...


class CeleryQueue:
    """Enqueues on the broker, from a thread.

    Args:
        client: for the broker.
    """

    def __init__(self, client: ClasperClient) -> None:
        self._client = client
        self._crew = ThreadCrew("clasper-jobs", 2)

    async def put(self, jobs: Sequence[Job]) -> None:
        """See `JobQueue.put`."""
        if jobs:
            await self._crew.call(self._put, jobs)

    def close(self) -> None:
        """Let what is being enqueued be enqueued, for a moment, and close the connections."""
        self._crew.close(0.5)
        self._client.close()

    def _put(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._client.submit(
                job.task,
                job.arguments,
                job_id=job.job_id,
                queue=job.queue,
                keeps_result=job.keeps_result,
                headers={NOTIFICATION_HEADER: job.mark} if job.mark else {},
            )
