"""The conversation before this turn (contract Part 1, "History")."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from clasper_worker.llm.messages import ChatMessage
from clasper_worker.mission_control.client import AgentBackend
from clasper_worker.mission_control.models import Message
from clasper_worker.turn.journal import Opening
from clasper_worker.turn.request import SendRequest


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

    The request's ``messages``; else the task's newest ``limit`` messages where the backend
    offers the feature ``history``; else none.

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
    recent: deque[Message] = deque(maxlen=limit)
    async for message in backend.messages(task_id):
        end = message.id
        if message.content.strip():
            recent.append(message)
        if seen is not None and message.id == seen.history_end:
            break
    # A backend that records the person's message before it enqueues the turn would have it twice.
    if recent and recent[-1].actor_type != "agent" and recent[-1].content == request.message:
        recent.pop()
    return History(tuple(_as_chat(message) for message in recent), end)


def _as_chat(message: Message) -> ChatMessage:
    return ChatMessage("assistant" if message.actor_type == "agent" else "user", message.content)
