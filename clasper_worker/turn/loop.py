"""The model loop: ask, carry out the tool calls, ask again, until there is an answer."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from clasper_worker.errors import EmptyReplyError, ModelRejectedError, ToolLoopError
from clasper_worker.llm.completion import with_own_ids
from clasper_worker.llm.messages import ChatMessage, ChatModel, ModelReply, ToolCall, ToolChoice
from clasper_worker.observability.events import UNHEARD, ModelAnswer, ReportedTurn
from clasper_worker.observability.stopwatch import spent_on
from clasper_worker.text.whole_text import whole
from clasper_worker.tools.registry import Toolbox, ToolContext
from clasper_worker.turn.journal import TurnJournal
from clasper_worker.turn.streamed_text import StreamedText

log = structlog.get_logger(__name__)

# The same call with the same arguments is carried out this often in a turn; more is refused to
# the model, and a model that insists still loses the turn.
REPEATS_ALLOWED = 2
REPEATS_FATAL = 5

UNKNOWN_TOOL = "unknown_tool"
"""What events call a tool that there is not: a model may make up names without number."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How the loop ended: the text to post, and every model call it took."""

    text: str = field(repr=False)
    replies: tuple[ModelReply, ...] = field(repr=False)
    tool_calls: int


async def converse(
    model: ChatModel,
    opening: Sequence[ChatMessage],
    toolbox: Toolbox,
    context_for: Callable[[str], ToolContext],
    journal: TurnJournal,
    *,
    max_steps: int,
    reported: ReportedTurn = UNHEARD,
    streamed: StreamedText | None = None,
) -> Answer:
    """Run the conversation until the model answers in text.

    What the journal has is not done again. Replies that call tools and the tools' results are
    recorded in it; the answer is not: that is recorded together with what follows from it.

    Args:
        model: whom to ask.
        opening: system prompt, history and the newest message.
        toolbox: the tools it may call.
        context_for: the context of a call, by the name of its step (``tool:{step}:{index}``).
        journal: what earlier runs of the turn have done, and where this one records it.
        max_steps: how many model calls there may be; in the last one it may not call tools.
        reported: who listens to what is done here.
        streamed: reports the text as it comes.

    Raises:
        ModelError: no usable answer came.
        ToolLoopError: it kept repeating a call, or never came to an answer.
        BackendError: a tool's backend call failed for good.
        StateUnavailableError: the journal cannot be reached.
    """
    turn, events = reported.turn, reported.events
    streamed = streamed or StreamedText()
    messages = list(opening)
    replies: list[ModelReply] = []
    repeats: Counter[str] = Counter()
    call_ids: set[str] = set()
    calls = 0
    for step in range(1, max_steps + 1):
        choice: ToolChoice = "auto" if step < max_steps else "none"
        reply = journal.reply(step)
        if reply is None:
            events.model_asked(turn, step=step)
            streamed.ask(step)
            began = time.monotonic()
            with spent_on("model"):
                reply = await model.complete(
                    messages, toolbox.specs, tool_choice=choice, listen=streamed.listen
                )
            seconds = time.monotonic() - began
            journal.note_reply(step, reply)
            streamed.conclude(step, reply.text)
            if reply.tool_calls and choice == "auto":
                await streamed.kept()
                reply = await journal.record_reply(step, with_own_ids(reply, step, call_ids))
                streamed.conclude(step, reply.text)
            events.model_answered(turn, _answered(step, reply, seconds))
        else:
            streamed.conclude(step, reply.text)
        replies.append(reply)
        if not reply.tool_calls:
            return Answer(_text(reply), tuple(replies), calls)
        if choice == "none":
            break
        call_ids.update(call.id for call in reply.tool_calls)
        said = reply.text or None
        messages.append(ChatMessage("assistant", said, reply.tool_calls, extra=reply.extra))
        for index, call in enumerate(reply.tool_calls):
            result = _refuse_repeat(call, repeats) or journal.tool_result(step, index)
            if result is None:
                context = context_for(f"tool:{step}:{index}")
                result = await _carry_out(call, context, toolbox, journal, (step, index), reported)
            calls += 1
            messages.append(ChatMessage("tool", result, tool_call_id=call.id))
    raise ToolLoopError(
        f"The model did not come to an answer in {max_steps} steps (CLASPER_MAX_STEPS)",
        {"steps": max_steps},
    )


async def _carry_out(
    call: ToolCall,
    context: ToolContext,
    toolbox: Toolbox,
    journal: TurnJournal,
    place: tuple[int, int],
    reported: ReportedTurn,
) -> str:
    """Carry out one tool call, and record its result; returns what the model is told."""
    turn, events = reported.turn, reported.events
    step, index = place
    name = call.name if call.name in toolbox.names else UNKNOWN_TOOL
    events.tool_called(turn, step=step, index=index, tool=name)
    began = time.monotonic()
    with spent_on("tools"):
        given = await toolbox.call(context, call)
    log.info("tool.called", tool=call.name, step=step)
    result = await journal.record_tool_result(step, index, given.text)
    events.tool_answered(
        turn,
        step=step,
        index=index,
        tool=name,
        seconds=time.monotonic() - began,
        chars=len(result),
        succeeded=given.succeeded,
    )
    return result


def _answered(step: int, reply: ModelReply, seconds: float) -> ModelAnswer:
    return ModelAnswer(
        step=step,
        provider=reply.provider,
        model=reply.model,
        seconds=seconds,
        prompt_tokens=reply.usage.prompt,
        completion_tokens=reply.usage.completion,
        cached_tokens=reply.usage.cached,
        tool_calls=len(reply.tool_calls),
        finish_reason=reply.finish_reason,
    )


def _text(reply: ModelReply) -> str:
    if reply.finish_reason == "content_filter":
        raise ModelRejectedError(
            f"The provider of {reply.model!r} filtered the reply: nothing was posted",
            {"model": reply.model, "finish_reason": reply.finish_reason},
        )
    text = whole(reply.text).strip()
    if not text:
        raise EmptyReplyError(
            f"The model {reply.model!r} answered with neither text nor tool calls"
            f" (finish_reason {reply.finish_reason!r}): nothing was posted",
            {"model": reply.model, "finish_reason": reply.finish_reason},
        )
    return text


def _refuse_repeat(call: ToolCall, repeats: Counter[str]) -> str | None:
    """What the model is told instead of a result when it makes the same call again and again."""
    fingerprint = f"{call.name} {_canonical(call.arguments)}"
    repeats[fingerprint] += 1
    count = repeats[fingerprint]
    if count <= REPEATS_ALLOWED:
        return None
    if count >= REPEATS_FATAL:
        raise ToolLoopError(
            f"The model called {call.name!r} with the same arguments {count} times",
            {"tool": call.name, "repeats": count},
        )
    return json.dumps(
        {
            "error": f"You have made this very call {count} times. It was not carried out again:"
            " use the results you already have, or answer now."
        }
    )


def _canonical(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments
