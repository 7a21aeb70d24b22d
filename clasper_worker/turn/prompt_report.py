"""What one turn would send its model, and why, as data: for ``clasper prompt``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from clasper_worker.config.settings import Settings
from clasper_worker.llm.messages import ChatMessage
from clasper_worker.llm.providers.openai_client import OPENAI, OpenAIClient
from clasper_worker.llm.token_estimate import estimate_tokens
from clasper_worker.llm.tokens import estimated
from clasper_worker.llm.windows import model_windows, unknown_window
from clasper_worker.prompt.context import AgentContext, prompt_settings
from clasper_worker.prompt.retrieval.selection import Selection
from clasper_worker.prompt.workspace.snapshot import WorkspaceSnapshot
from clasper_worker.tools.built_in import BUILT_IN_TOOLS
from clasper_worker.tools.registry import Toolbox
from clasper_worker.turn.fit import FittedHistory
from clasper_worker.turn.opening import TurnPrompt, turn_prompt
from clasper_worker.turn.request import RequestLimits, parse_send_request

_EMBEDDING_SECONDS = 120.0

_NO_TITLE = (
    "a turn tells the title of its task too, which is not known here: give --task-title,"
    " or set CLASPER_DEFAULT_TASK"
)
_NO_HISTORY = (
    "where the backend keeps the conversation, a turn tells it before the newest message:"
    " give it as messages in --request"
)


@dataclass(frozen=True, slots=True)
class _Sent:
    """What a turn would send, and where it comes from."""

    snapshot: WorkspaceSnapshot
    prompt: TurnPrompt
    messages: Sequence[ChatMessage]
    fitted: FittedHistory
    toolbox: Toolbox
    seconds: float
    notes: Sequence[str]


async def prompt_report(settings: Settings, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Do what a turn does up to its first model call, without a backend, and say what came of it.

    Args:
        settings: the operator's.
        fields: a send request's.

    Raises:
        InvalidRequestError: the request is not valid; names every bad field.
        WorkspaceError: there is no such workspace.
    """
    return _report(await _prepare(settings, fields), settings)


async def _prepare(settings: Settings, fields: Mapping[str, Any]) -> _Sent:
    request = parse_send_request(fields, RequestLimits.from_settings(settings))
    history = [ChatMessage(item.role, item.content) for item in request.messages or ()]
    toolbox = Toolbox(BUILT_IN_TOOLS)
    title = request.task_title
    if title is None and request.task_id is None:
        title = settings.clasper_default_task
    embeddings = OpenAIClient(OPENAI, settings)
    async with AsyncExitStack() as opened:
        opened.push_async_callback(embeddings.close)
        context = await asyncio.to_thread(AgentContext.open, settings, embeddings.sdk)
        opened.callback(context.close)
        snapshot = context.workspaces.snapshot(request.metadata.workspace, request.user_id)
        if context.smart is not None:
            await context.smart.settled(snapshot, _EMBEDDING_SECONDS)

        async def build() -> TurnPrompt:
            return await turn_prompt(
                request,
                snapshot,
                smart=context.smart,
                settings=prompt_settings(settings),
                now=datetime.now(UTC),
                task_title=title,
                tool_names=toolbox.names,
                history=history,
            )

        await build()  # the first one makes what the others share
        started = time.perf_counter()
        prompt = await build()
        seconds = time.perf_counter() - started
    # What is known of models takes a third of a second to load: only where it matters.
    tier = request.metadata.model_tier
    window = model_windows(settings)[tier] if history else unknown_window()
    messages, fitted = prompt.fit(history, toolbox.tokens, window)
    notes = [] if title else [_NO_TITLE]
    if request.messages is None:
        notes.append(_NO_HISTORY)
    return _Sent(snapshot, prompt, messages, fitted, toolbox, seconds, notes)


def _report(sent: _Sent, settings: Settings) -> dict[str, Any]:
    prompt = sent.prompt.prompt
    warnings = [f"{item.subject}: {item.problem}" for item in prompt.warnings]
    return {
        "workspacePath": str(sent.snapshot.root),
        "smartContext": {
            "enabled": settings.clasper_smart_context,
            **_choice(sent.prompt.selection),
        },
        "skillsOff": [
            {"name": skill.name, "reason": skill.off_reason}
            for skill in sent.snapshot.skills.values()
            if not skill.enabled
        ],
        "sections": [
            {
                "name": section.name,
                "part": section.part,
                "source": section.source,
                "chars": len(section.text),
                "estimatedTokens": estimate_tokens(section.text),
            }
            for section in prompt.sections
        ],
        "history": {"told": len(sent.fitted.messages), "leftOut": sent.fitted.dropped},
        "warnings": [*warnings, *map(str, sent.snapshot.warnings)],
        "notes": list(sent.notes),
        "buildMilliseconds": round(sent.seconds * 1000, 3),
        "estimatedTokens": {
            "system": estimate_tokens(prompt.system),
            "history": sum(map(estimated, sent.fitted.messages)),
            "newestMessage": estimate_tokens(sent.prompt.newest),
            "tools": sent.toolbox.tokens,
        },
        "messages": [{"role": item.role, "content": item.content} for item in sent.messages],
        "tools": [
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
            for tool in sent.toolbox.specs
        ],
    }


def _choice(selection: Selection | None) -> dict[str, Any]:
    if selection is None:
        return {"ranker": None, "problem": None, "candidates": []}
    return {
        "ranker": selection.ranker,
        "problem": selection.problem,
        "candidates": [
            {
                "kind": item.kind,
                "name": item.name,
                "score": round(item.score, 4),
                "estimatedTokens": item.tokens,
                "chosen": item.left_out is None,
                "leftOut": item.left_out,
            }
            for item in selection.candidates
        ],
    }
