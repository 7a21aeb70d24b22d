"""The model of one turn: the configured one, and the fallback once that one is unavailable."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from clasper_worker.errors import ModelUnavailableError
from clasper_worker.llm.messages import ChatMessage, ChatModel, ModelReply, ToolChoice, ToolSpec

log = structlog.get_logger(__name__)


class ModelChain:
    """Tries each model in order and stays with the one that answered.

    Made anew for each turn, so that a turn does not wait for a dead provider at every step, and
    the next turn tries the preferred model again. Only an unavailable model (transient, after the
    client's retries) is passed over: a refused request would be refused by the next one too.
    """

    def __init__(self, models: Sequence[ChatModel]) -> None:
        self._remaining = list(models)

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolSpec] = (),
        *,
        tool_choice: ToolChoice = "auto",
    ) -> ModelReply:
        """Ask the first model that is available; see `ChatModel.complete`."""
        while True:
            try:
                return await self._remaining[0].complete(messages, tools, tool_choice=tool_choice)
            except ModelUnavailableError as exc:
                if len(self._remaining) == 1:
                    raise
                log.warning("model.fallback", unavailable=exc.details.get("model"))
                del self._remaining[0]
