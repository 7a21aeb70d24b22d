"""The conversation before this turn (contract Part 1, "History")."""

from __future__ import annotations

from collections import deque

from clasper_worker.llm.messages import ChatMessage
from clasper_worker.mission_control.client import AgentBackend
from clasper_worker.mission_control.models import Message
from clasper_worker.turn.request import SendRequest


async def load_history(
    request: SendRequest, backend: AgentBackend, task_id: str, *, limit: int
) -> tuple[ChatMessage, ...]:
    """The messages before this one, oldest first.

    The request's ``messages``; else the task's newest ``limit`` messages where the backend
    offers the feature ``history``; else none.

    Raises:
        BackendError: the backend failed, or there is no such task for this user.
    """
    if request.messages is not None:
        return tuple(ChatMessage(item.role, item.content) for item in request.messages)
    if limit == 0 or not await backend.has("history"):
        return ()
    recent: deque[Message] = deque(maxlen=limit)
    async for message in backend.messages(task_id):
        if message.content.strip():
            recent.append(message)
    # A backend that records the person's message before it enqueues the turn would have it twice.
    if recent and recent[-1].actor_type != "agent" and recent[-1].content == request.message:
        recent.pop()
    return tuple(_as_chat(message) for message in recent)


def _as_chat(message: Message) -> ChatMessage:
    return ChatMessage("assistant" if message.actor_type == "agent" else "user", message.content)
