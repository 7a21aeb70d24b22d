"""The decision: given one request, the text to say or the tools to call. Pure, and never empty."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from clasper_worker.offline_model.actions import Action, find_actions, forced_action
from clasper_worker.offline_model.answers import compose
from clasper_worker.offline_model.conversation import Conversation, read_conversation
from clasper_worker.offline_model.kickoff import kickoff_plan
from clasper_worker.offline_model.protocol import ChatRequest, FunctionSpec
from clasper_worker.offline_model.structured import json_reply
from clasper_worker.offline_model.toolbox import closest

_MOST_CALLS = 64


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool to call; ``arguments`` fit its JSON Schema as far as that can be met."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """Text to say, or tools to call: exactly one of the two is not empty."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


def decide(request: ChatRequest) -> Decision:
    """Decide what to answer to a request.

    A tool is called once for each thing that the newest message asks of it; what has a result
    already is never called again. Where nothing is left to call, the reply is text: what the
    results say, or an answer made from the words, the history and the instructions.
    """
    talk = read_conversation(request)
    plan = kickoff_plan(talk.asked)
    actions = () if plan else find_actions(talk)
    calls = _pending(actions, talk)
    choice = request.tool_choice
    if choice is not None and choice.type == "function" and choice.function is not None:
        calls = [call for call in calls if call.name == choice.function.name] or [
            _forced(choice.function.name, talk)
        ]
    elif choice is not None and choice.type == "required" and not calls:
        calls = [_forced(closest(talk.words, _fresh(talk)).name, talk)]
    if calls:
        most = 1 if request.parallel_tool_calls is False else _MOST_CALLS
        return Decision(tool_calls=tuple(calls[:most]))
    return Decision(text=json_reply(request, talk) or compose(talk, actions, plan))


def _pending(actions: tuple[Action, ...], talk: Conversation) -> list[ToolCall]:
    """The calls still to be made: each action that can be done and has no result yet."""
    done = Counter(call.name for call in talk.executed)
    calls = []
    for action in actions:
        if action.tool is None or action.question:
            continue
        if done[action.tool.name]:
            done[action.tool.name] -= 1
        elif not action.waits:
            calls.append(ToolCall(action.tool.name, action.arguments))
    return calls


def _forced(name: str, talk: Conversation) -> ToolCall:
    tool = next(tool for tool in talk.tools if tool.name == name)
    return ToolCall(name, forced_action(tool, talk).arguments)


def _fresh(talk: Conversation) -> tuple[FunctionSpec, ...]:
    """The tools without a result yet; all where each has one."""
    done = {call.name for call in talk.executed}
    return tuple(tool for tool in talk.tools if tool.name not in done) or talk.tools
