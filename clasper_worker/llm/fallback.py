"""The model of one turn: the configured one, and the fallback once that one is unavailable."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from clasper_worker.errors import ModelNotFoundError, ModelProtocolError, ModelUnavailableError
from clasper_worker.llm.messages import (
    NO_OPTIONS,
    CallOptions,
    ChatMessage,
    ChatModel,
    Confirm,
    Listen,
    ModelReply,
    Restarted,
    ToolChoice,
    ToolSpec,
)

_PASSED_OVER = (ModelUnavailableError, ModelNotFoundError, ModelProtocolError)

log = structlog.get_logger(__name__)


class ModelChain:
    """Tries each model in order and stays with the one that answered.

    Made anew for each turn, so that a turn does not wait for a dead provider at every step, and
    the next turn tries the preferred model again. Passed over is a model that is unavailable
    (transient, after the client's retries), that its provider does not know, or whose answers are
    none: a request refused otherwise would be refused by the next one too.
    """

    def __init__(self, models: Sequence[ChatModel]) -> None:
        self._remaining = list(models)

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
        """Ask the first model that is available; see `ChatModel.complete`."""
        while True:
            try:
                return await self._remaining[0].complete(
                    messages,
                    tools,
                    tool_choice=tool_choice,
                    confirm=confirm,
                    listen=listen,
                    options=options,
                )
            except _PASSED_OVER as exc:
                if len(self._remaining) == 1:
                    raise
                log.warning("model.fallback", unavailable=exc.details.get("model"))
                del self._remaining[0]
                if listen is not None:
                    listen(Restarted())
