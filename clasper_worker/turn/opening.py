"""How a turn's conversation opens: system prompt, history, newest message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from clasper_worker.llm.messages import ChatMessage
from clasper_worker.llm.windows import ModelWindow
from clasper_worker.prompt.builder import build_prompt
from clasper_worker.prompt.models import Prompt, PromptInputs, PromptSettings
from clasper_worker.prompt.retrieval.selection import Selection, SmartLimits
from clasper_worker.prompt.retrieval.smart_context import SmartContext
from clasper_worker.prompt.workspace.snapshot import WorkspaceSnapshot
from clasper_worker.turn.fit import FittedHistory, fit_history
from clasper_worker.turn.request import SendRequest

FEW_CHARS = 24
"""A message this short says little by itself ("yes, do it"): what came before it says the rest."""
_BEFORE_CHARS = 500
_OF_THE_WORKSPACE = frozenset({"soul", "rules", "skills"})
# Warnings on these are the same at every turn until a file changes.

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TurnPrompt:
    """The prompt of one turn, and what smart context chose for it (None where it was not asked)."""

    prompt: Prompt
    selection: Selection | None
    newest: str = field(repr=False)

    def fit(
        self, history: Sequence[ChatMessage], tools: int, window: ModelWindow
    ) -> tuple[list[ChatMessage], FittedHistory]:
        """System prompt, history as far as it fits, newest message.

        What is stable comes first, so that a provider's prompt cache covers all but the newest.

        Args:
            history: oldest first.
            tools: tokens that telling the model of its tools takes.
            window: what the model can take.
        """
        system = ChatMessage("system", self.prompt.system)
        newest = ChatMessage("user", self.newest)
        fitted = fit_history(history, fixed=(system, newest), tools=tools, window=window)
        if fitted.dropped:
            log.info("history.cut", dropped=fitted.dropped, kept=len(fitted.messages))
        return [system, *fitted.messages, newest], fitted


async def turn_prompt(
    request: SendRequest,
    snapshot: WorkspaceSnapshot,
    *,
    smart: SmartContext | None,
    settings: PromptSettings,
    now: datetime,
    task_title: str | None,
    tool_names: tuple[str, ...],
    history: Sequence[ChatMessage] = (),
) -> TurnPrompt:
    """Choose what to tell and build the prompt. Touches no file.

    Args:
        request: the turn's.
        snapshot: its workspace.
        smart: chooses; None: the full context.
        settings: the operator's.
        now: the moment, with a time zone.
        task_title: of the task that the turn belongs to, where it is known.
        tool_names: the tools that the model can call.
        history: what was said before; with a very short message part of what is ranked by.
    """
    switches = request.metadata
    selection = None
    is_full = request.prompt_mode == "full"
    if smart is not None and is_full and not switches.skipSmartContext:
        limits = limits_for(request, settings.smart_limits)
        selection = await smart.select(snapshot, ranked_by(request.message, history), limits)
    prompt = build_prompt(
        snapshot,
        PromptInputs(
            role=request.role,
            now=now,
            timezone=switches.timezone or settings.timezone,
            include_time=settings.include_time,
            system_prompt_override=switches.system_prompt,
            task_title=task_title,
            tool_names=tool_names,
            mode=request.prompt_mode,
            forced_skills=switches.forceIncludeSkills,
            selection=selection,
        ),
    )
    _log_warnings(prompt, snapshot)
    newest = request.instruction
    if prompt.turn_context:
        newest = f"{prompt.turn_context}\n\n{newest}"
    return TurnPrompt(prompt, selection, newest)


def _log_warnings(prompt: Prompt, snapshot: WorkspaceSnapshot) -> None:
    """Log what a turn's author should know; what the workspace's should, once for each snapshot."""
    logged = snapshot.derived.setdefault("logged warnings", set())
    for warning in prompt.warnings:
        if warning.subject == "smart_context" or warning in logged:
            continue  # the first is logged and counted where it failed, not at each turn
        if warning.subject in _OF_THE_WORKSPACE:
            logged.add(warning)
        log.warning("prompt.warning", subject=warning.subject, problem=warning.problem)


def limits_for(request: SendRequest, limits: SmartLimits) -> SmartLimits:
    """The request's own limits where it has them, else the operator's."""
    asked = request.metadata
    return SmartLimits(
        max_skills=_or(asked.smart_context_max_skills, limits.max_skills),
        max_memory=_or(asked.smart_context_max_memory, limits.max_memory),
        max_tokens=_or(asked.smart_context_token_budget, limits.max_tokens),
    )


def ranked_by(message: str, history: Sequence[ChatMessage]) -> str:
    """What skills and memory are ranked by: the message, and before a very short one what was said.

    A skill that is being followed must not vanish when the person merely says yes.
    """
    if len(message.strip()) > FEW_CHARS:
        return message
    said = [item.content or "" for item in history[-2:] if item.role in {"user", "assistant"}]
    return "\n".join((message, *(text[:_BEFORE_CHARS] for text in said)))


def _or(asked: int | None, configured: int) -> int:
    return configured if asked is None else asked
