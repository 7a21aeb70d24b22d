"""A turn's conversation with its model: how it opens, and what its answer decides."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from clasper_worker.errors import ContextLengthError
from clasper_worker.llm.cost import Usage, turn_cost
from clasper_worker.llm.messages import ChatMessage, ChatModel
from clasper_worker.llm.windows import ModelWindow
from clasper_worker.mission_control.client import AgentBackend
from clasper_worker.mission_control.idempotency import turn_step_key
from clasper_worker.observability.events import PromptFacts, ReportedTurn
from clasper_worker.prompt.workspace.snapshot import WorkspaceSnapshot
from clasper_worker.tools.registry import Toolbox, ToolContext
from clasper_worker.turn.context import TurnDependencies
from clasper_worker.turn.deliver import about_the_task
from clasper_worker.turn.fence import FencedModel
from clasper_worker.turn.fit import FittedHistory, window_by_refusal, window_warning
from clasper_worker.turn.journal import Opening, Outcome, TurnJournal
from clasper_worker.turn.loop import Answer, converse
from clasper_worker.turn.models import ResolvedTask
from clasper_worker.turn.opening import TurnPrompt, turn_prompt
from clasper_worker.turn.request import SendRequest
from clasper_worker.turn.streamed_text import StreamedText
from clasper_worker.turn.task_thread import load_history

_REPLY_CUT = "the reply was cut at the model's limit for one reply"


@dataclass(slots=True)
class Conversation:
    """What the model is told, and with which tools; asked by `answer`.

    Attributes:
        reported: whose conversation it is, and who listens.
        deps: the turn's collaborators.
        backend: Mission Control as the turn's agent.
        task: the turn's task.
        journal: what earlier runs have done, and where this one records it.
        model: whom to ask; it asks while the turn is this run's.
        window: what the model takes.
        toolbox: the tools that it may call.
        prompt: what the workspace and the request say.
        history: what was said before, oldest first.
        messages: the conversation that fits the window.
        fitted: which of the history that is.
        streamed: reports what the model says as it comes.
    """

    reported: ReportedTurn
    deps: TurnDependencies
    backend: AgentBackend
    task: ResolvedTask
    journal: TurnJournal
    model: ChatModel
    window: ModelWindow
    toolbox: Toolbox
    prompt: TurnPrompt
    history: Sequence[ChatMessage]
    messages: list[ChatMessage]
    fitted: FittedHistory
    streamed: StreamedText

    async def answer(self) -> Answer:
        """Have the model answer; what the journal has is not asked again.

        A conversation that is too long for the model is told once more with less history.

        Raises:
            ModelError, ToolLoopError, BackendError, StateUnavailableError: as `converse`.
        """
        try:
            answer = await self._converse()
        except ContextLengthError as exc:
            smaller = window_by_refusal(self.fitted, exc.details)
            messages, fitted = self.prompt.fit(self.history, self.toolbox.tokens, smaller)
            if fitted.dropped <= self.fitted.dropped:
                raise
            self.messages, self.fitted = messages, fitted
            answer = await self._converse()
        self.window.counter.learn(self.fitted.estimate, answer.replies[0].usage.prompt)
        return answer

    def outcome(self, answer: Answer) -> Outcome:
        """How the turn ends with this answer, and what it took."""
        last = answer.replies[-1]
        warnings = (
            _REPLY_CUT if last.finish_reason == "length" else None,
            window_warning(
                self.fitted,
                last.usage.prompt + last.usage.completion,
                self.window,
                self.deps.settings.prompt.warn_from_percent,
            ),
        )
        return Outcome(
            kind="reply",
            task_id=self.task.id,
            text=answer.text,
            usage=Usage.of(answer.replies),
            cost=turn_cost(answer.replies),
            tool_calls=answer.tool_calls,
            warning="; ".join(filter(None, warnings)) or None,
        )

    async def _converse(self) -> Answer:
        return await converse(
            self.model,
            self.messages,
            self.toolbox,
            self._context_for,
            self.journal,
            max_steps=self.deps.settings.max_steps,
            reported=self.reported,
            streamed=self.streamed,
        )

    def _context_for(self, step: str) -> ToolContext:
        turn = self.reported.turn
        key = turn_step_key(turn.user_id, turn.turn_id, step)
        return ToolContext(self.backend, self.deps.tasks, self.task.id, key)


async def open_conversation(
    request: SendRequest,
    deps: TurnDependencies,
    workspace: WorkspaceSnapshot,
    backend: AgentBackend,
    task: ResolvedTask,
    journal: TurnJournal,
    reported: ReportedTurn,
    streamed: StreamedText,
) -> Conversation:
    """Read the history and build the prompt, as an earlier run told them to the model.

    Raises:
        BackendError: the history could not be read.
    """
    settings, seen, began = deps.settings, journal.opening, time.monotonic()
    with about_the_task(request, deps):
        history = await load_history(
            request,
            backend,
            task.id,
            limit=request.history_limit(settings.history_limit),
            seen=seen,
        )
    toolbox = deps.toolbox.where(await backend.offered())
    opening = seen or Opening(task, deps.now(), history.end)
    journal.begin(opening)
    prompt = await turn_prompt(
        request,
        workspace,
        smart=deps.smart,
        settings=settings.prompt,
        now=opening.now,
        task_title=task.title,
        tool_names=toolbox.names,
        history=history.messages,
    )
    tier = request.metadata.model_tier
    window = deps.window(tier)
    messages, fitted = prompt.fit(history.messages, toolbox.tokens, window)
    chosen = () if prompt.selection is None else prompt.selection.skills
    reported.events.prompt_built(
        reported.turn,
        PromptFacts(
            seconds=time.monotonic() - began,
            messages=len(messages),
            estimated_tokens=fitted.estimate,
            dropped=fitted.dropped,
            skills=tuple(chosen),
        ),
    )
    return Conversation(
        reported=reported,
        deps=deps,
        backend=backend,
        task=task,
        journal=journal,
        model=FencedModel(deps.model(tier), deps.lease),
        window=window,
        toolbox=toolbox,
        prompt=prompt,
        history=history.messages,
        messages=messages,
        fitted=fitted,
        streamed=streamed,
    )
