"""The fence of a turn: nothing is posted by a run that another has taken over."""

from __future__ import annotations

from collections.abc import Sequence

from clasper_worker.engine.queue.delivery import Lease
from clasper_worker.llm.messages import (
    NO_OPTIONS,
    CallOptions,
    ChatMessage,
    ChatModel,
    Confirm,
    Listen,
    ModelReply,
    ToolChoice,
    ToolSpec,
)


class FencedModel:
    """A model that is asked, and paid, only while the turn is still this run's.

    Args:
        model: whom to ask.
        lease: confirmed before each try of a call.
    """

    def __init__(self, model: ChatModel, lease: Lease) -> None:
        self._model = model
        self._lease = lease

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolSpec] = (),
        *,
        tool_choice: ToolChoice = "auto",
        confirm: Confirm | None = None,
        listen: Listen | None = None,
        options: CallOptions = NO_OPTIONS,
    ) -> ModelReply:
        """See `ChatModel.complete`.

        Raises:
            LeaseLostError: another run has taken the turn over.
            ModelError: no usable answer came.
        """
        return await self._model.complete(
            messages,
            tools,
            tool_choice=tool_choice,
            confirm=confirm or self._lease.confirm,
            listen=listen,
            options=options,
        )
