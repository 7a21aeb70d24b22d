"""The conversation before this turn (contract Part 1, "History")."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from clasper_worker.errors import ConfigurationError
from clasper_worker.llm.messages import ChatMessage
from clasper_worker.mission_control.client import AgentBackend
from clasper_worker.mission_control.models import Message
from clasper_worker.mission_control.task_finder import TaskFinder
from clasper_worker.turn.journal import Opening
from clasper_worker.turn.models import ResolvedTask
from clasper_worker.turn.request import SendRequest

_STEPS = 5


# A conversation that is longer than the limit loses a fifth of the limit at a time.


@dataclass(frozen=True, slots=True)
class History:
    """The messages before a turn, oldest first.

    Attributes:
        messages: what the model is told.
        end: the id of the last of the backend's messages looked at; None where there was none.
    """

    messages: tuple[ChatMessage, ...] = field(default=(), repr=False)
    end: str | None = None


async def load_history(
    request: SendRequest,
    backend: AgentBackend,
    task_id: str,
    *,
    limit: int,
    seen: Opening | None = None,
) -> History:
    """The conversation before this turn.

    The request's ``messages``; else the task's newest messages, at most ``limit``, where the
    backend offers the feature ``history``; else none.

    Args:
        request: the request.
        backend: the backend under the turn's agent token.
        task_id: the turn's task.
        limit: how many messages at most.
        seen: what an earlier run of the turn saw: messages after that, such as those that its
            tools have posted, are not of the history.

    Raises:
        BackendError: the backend failed, or there is no such task for this user.
    """
    if request.messages is not None:
        return History(tuple(ChatMessage(item.role, item.content) for item in request.messages))
    if limit == 0 or (seen is not None and seen.history_end is None):
        return History()
    if not await backend.has("history"):
        return History()
    end: str | None = None
    count = 0
    recent: deque[Message] = deque(maxlen=limit + 1)  # the newest may be this turn's own
    async for message in backend.messages(task_id):
        end = message.id
        if message.content.strip():
            recent.append(message)
            count += 1
        if seen is not None and message.id == seen.history_end:
            break
    # A backend that records the person's message before it enqueues the turn would have it twice.
    if recent and recent[-1].actor_type != "agent" and recent[-1].content == request.message:
        recent.pop()
        count -= 1
    chat = [_as_chat(message) for message in recent]
    return History(tuple(_from_a_steady_start(chat, count, limit)), end)


def _from_a_steady_start(
    recent: list[ChatMessage], count: int, limit: int
) -> Sequence[ChatMessage]:
    """The newest messages of a long conversation, from a start that stays for some turns.

    A window that moves on with each message would share nothing with the turn before, and no
    provider's prompt cache would hold it. So it moves in steps, and begins with a question: an
    answer does not stand without its own.

    Args:
        recent: the newest messages, as many as are at hand, oldest first.
        count: how many there are in all.
        limit: how many may be told.
    """
    if count <= limit:
        return recent
    step = max(1, limit // _STEPS)
    start = -(-(count - limit) // step) * step
    kept = recent[start - (count - len(recent)) :]
    roles = [message.role for message in kept]
    return kept[roles.index("user") :] if "user" in roles else kept


def _as_chat(message: Message) -> ChatMessage:
    return ChatMessage("assistant" if message.actor_type == "agent" else "user", message.content)


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
