"""Which Mission Control task a turn belongs to (contract Part 2, "Task resolution")."""

from __future__ import annotations

from dataclasses import dataclass, field

from clasper_worker.errors import ConfigurationError
from clasper_worker.mission_control.client import AgentBackend
from clasper_worker.mission_control.task_finder import TaskFinder
from clasper_worker.turn.request import SendRequest


@dataclass(frozen=True, slots=True)
class ResolvedTask:
    """The task to read from and post to; its title where we know it."""

    id: str
    title: str | None = field(default=None, repr=False)


async def resolve_task(
    request: SendRequest,
    backend: AgentBackend,
    tasks: TaskFinder,
    *,
    default_title: str | None,
) -> ResolvedTask:
    """``task_id``, else the task of ``task_title``, else of ``CLASPER_DEFAULT_TASK``.

    Raises:
        ConfigurationError: none of the three is given.
        BackendError: the backend failed.
    """
    if request.task_id is not None:
        return ResolvedTask(request.task_id)
    title = request.task_title or default_title
    if not title:
        raise ConfigurationError(
            "The turn has no Mission Control task: give task_id or task_title in the request, or"
            " set CLASPER_DEFAULT_TASK to a title",
            {"variable": "CLASPER_DEFAULT_TASK"},
        )
    found = await tasks.find_or_create(
        backend, title, description=request.task_description, metadata=request.task_metadata
    )
    return ResolvedTask(found.task.id, found.task.title)
