"""The decision: given one request, the text to say or the tools to call. Pure, and never empty.

The rules read words, not meaning; `_ASKED_BY` and `_HINTS` say which. Text in ``<data>`` blocks is
other people's and asks for nothing. Each scan takes time in proportion to the message.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from clasper_worker.devkit.offline_model.json_instance import Instances, type_of
from clasper_worker.devkit.offline_model.protocol import ChatRequest, FunctionSpec
from clasper_worker.prompt.sanitize import unfence_data

LABEL = "[offline model]"
"""How every reply begins; only what a program reads (JSON, ``HEARTBEAT_OK``) goes without it."""

HEARTBEAT_OK = "HEARTBEAT_OK"

_READ_CHARS = 20_000  # of a longer message the rest is not searched
_ECHO_CHARS = 1_200
_RESULT_CHARS = 600
_QUOTED_CHARS = 4_000
_NEAR = 6  # words
_MOST_STEPS = 20
_MOST_CALLS = 64

# What asks for a tool: a noun, with one of the verbs before it; and whether a value must follow.
_ASKED_BY: dict[str, tuple[str, frozenset[str], bool]] = {
    "create_task": ("task", frozenset({"create", "add", "make"}), True),
    "list_tasks": ("tasks", frozenset({"list", "show", "read"}), False),
    "create_document": ("document", frozenset({"write", "save", "create", "draft"}), True),
    "post_message": ("message", frozenset({"post"}), True),
    "get_notifications": ("notifications", frozenset(), False),
}
_TITLED = frozenset({"create_document"})  # a title, and then perhaps "saying" and a text
_BY_NOUN = {noun: tool for tool, (noun, _, _) in _ASKED_BY.items()}
_HINTS = {
    "create_task": "create a task called …",
    "list_tasks": "list my tasks",
    "create_document": "write a document called … saying …",
    "post_message": "post a message saying …",
    "get_notifications": "any notifications?",
}
_MARKERS = frozenset({"called", "named", "titled", "saying", ":"})
_NEGATIONS = frozenset({"don't", "not", "without", "never", "no"})
_FILLERS = frozenset({"tool", "function", "with", "for", "to", "on", "about", "the", "in", "of"})
_JOINTS = frozenset({"and", "then", "also", "please"})
_QUOTES = {'"': '"', "\u201c": "\u201d", "`": "`", "'": "'"}
_EDGES = " \t\n,.;:"
_PLAIN = str.maketrans(string.ascii_uppercase + "_-\u2019", string.ascii_lowercase + "  '")
_WORD = re.compile(r"[\w']+|[^\w\s']")
_SENTENCE_END = re.compile(r"[.!?;](?=\s|$)|\n")
_SENTENCES = re.compile(r"(?<=[.!?;])\s+|\n+")
_PLANNING = re.compile(r"(?:please )?(?:draft|write|make|outline|prepare|propose|sketch|give)\b")
_CLOCK = re.compile(r"\b(?:what|the|today's|current) (?:time|date|day)\b")
_QUIET = re.compile(rf"\b(?:reply|answer|respond)[ \w:]{{0,40}}{HEARTBEAT_OK}")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool to call; ``arguments`` fit its JSON Schema as far as that can be met."""

    name: str
    arguments: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Decision:
    """Text to say, or tools to call: exactly one of the two is not empty."""

    text: str = field(default="", repr=False)
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ask:
    """Words that ask for a tool: where they begin, and where the value begins that follows."""

    tool: str
    start: int
    value: int


def decide(request: ChatRequest) -> Decision:
    """Decide what to answer.

    A tool is called once for each thing that the newest message asks of it; what has a result is
    not called again. Where nothing is left to call, the reply is text: what the results say, and
    the message's own words.
    """
    newest = max((i for i, item in enumerate(request.messages) if item.role == "user"), default=-1)
    context, words = _split_context(request.messages[newest].text if newest >= 0 else "")
    asked = _without_data(words[:_READ_CHARS])
    results = list(_results(request, newest))
    steps = _plan(asked)
    done = Counter(name for name, _ in results)
    calls = _demanded(request, asked, [] if steps else _wanted(request, asked), done)
    if calls:
        return Decision(tool_calls=tuple(calls))
    format_ = request.response_format
    if format_ and format_.type != "text":
        schema = (format_.json_schema or {}).get("schema")
        said = f"{LABEL} {_echo(words)}"
        value = {"reply": said} if schema is None else Instances(schema, said).make(schema)
        return Decision(json.dumps(value, ensure_ascii=False))
    if _QUIET.search(asked) and not any(_is_news(*result) for result in results):
        return Decision(HEARTBEAT_OK)
    if steps:
        parts = ["Plan:", "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))]
    else:
        parts = [_told(*result) for result in results] or [_hints(request)]
        parts = [_echo(words), *_clock(asked, context), *parts]
    return Decision(f"{LABEL} " + "\n\n".join(filter(None, parts)))


def _split_context(text: str) -> tuple[str, str]:
    """The ``<turn_context>`` block at a message's start, and the person's words."""
    text = text.strip()
    context, closed, words = text.removeprefix("<turn_context>").partition("</turn_context>")
    if not closed or not text.startswith("<turn_context>"):
        return "", text
    return context.strip(), words.strip()


def _without_data(text: str) -> str:
    parts, position = [], 0
    while (start := text.find("<data", position)) >= 0:
        parts.append(text[position:start])
        end = text.find("</data>", start)
        position = len(text) if end < 0 else end + len("</data>")
    return " ".join([*parts, text[position:]]).strip()


def _results(request: ChatRequest, newest: int) -> Iterator[tuple[str, str]]:
    """The tools called for the newest message, each with the text that it brought."""
    names: dict[str | None, str] = {}
    for message in request.messages[newest + 1 :]:
        names |= {call.id: call.function.name for call in message.tool_calls}
        if message.role == "tool":
            yield names.get(message.tool_call_id, "a tool"), unfence_data(message.text)


def _plan(asked: str) -> list[str]:
    """The steps of a plan, where the message is an instruction to plan and then a request."""
    instruction, _, message = asked.partition("\n\n")
    first = instruction[:300].lower()
    if not _PLANNING.match(first) or not re.search(r"\bplan\b", first):
        return []
    sentences = (line.strip(" \t-*") for line in _SENTENCES.split(message))
    return [line for line in sentences if line][:_MOST_STEPS]


def _wanted(request: ChatRequest, asked: str) -> list[ToolCall]:
    """What the words ask for, in their order."""
    tools = {tool.name: tool for tool in request.usable_functions}
    plain = asked.translate(_PLAIN)
    asks = [ask for ask in _asks(asked, plain) if ask.tool in tools]
    others = tools.keys() - {ask.tool for ask in asks}
    asks += filter(None, (_mention(name, plain) for name in others))
    asks.sort(key=lambda ask: ask.start)
    ends = [*(ask.start for ask in asks[1:]), len(asked)]
    return [
        _call(tools[ask.tool], _value(ask, asked, end))
        for ask, end in zip(asks, ends, strict=False)
    ]


def _demanded(
    request: ChatRequest, asked: str, wanted: list[ToolCall], done: Counter[str]
) -> list[ToolCall]:
    """The calls to make: those that have no result yet, and what ``tool_choice`` demands."""
    left = Counter(done)
    calls = []
    for call in wanted:
        if left[call.name]:
            left[call.name] -= 1
        else:
            calls.append(call)
    choice, tools = request.tool_choice, request.usable_functions
    if choice is not None and choice.function is not None:
        name = choice.function.name
        calls = [call for call in calls if call.name == name] or [
            _call(tool, asked) for tool in tools if tool.name == name
        ]
    elif choice is not None and choice.type == "required" and not calls:
        calls = [_call(min(tools, key=lambda tool: done[tool.name]), asked)]
    return calls[: 1 if request.parallel_tool_calls is False else _MOST_CALLS]


def _asks(asked: str, plain: str) -> Iterator[_Ask]:
    """Where the words ask for one of the known tools."""
    words = list(_WORD.finditer(plain))
    read_to = 0
    for index, word in enumerate(words):
        tool = _BY_NOUN.get(word.group())
        if tool is None or word.start() < read_to:
            continue
        _, verbs, needs_value = _ASKED_BY[tool]
        before = [item for item in words[max(0, index - _NEAR) : index] if item.start() >= read_to]
        said = [item.group() for item in before]
        verb = next((item.start() for item in reversed(before) if item.group() in verbs), None)
        start = word.start() if not verbs else verb
        if start is None or not _NEGATIONS.isdisjoint(said):
            continue
        after = [item for item in words[index + 1 : index + 4] if item.group() in _MARKERS]
        value = after[0].end() if after else word.end()
        quoted = _quotation(asked, value)
        if after or quoted or not needs_value:
            read_to = quoted[1] if quoted else value if needs_value else read_to
            yield _Ask(tool, start, value)


def _mention(name: str, plain: str) -> _Ask | None:
    """Where the words name a tool; a name of one common word must be called a tool, or used."""
    spoken = name.translate(_PLAIN)
    for found in re.finditer(rf"(?<!\w){re.escape(spoken)}(?!\w)", plain):
        before = plain[max(0, found.start() - 40) : found.start()].split()[-4:]
        after = plain[found.end() : found.end() + 12].split()[:1]
        told = {"use", "call", "run"} & {*before} or {"tool", "function"} & {*after}
        if (told or " " in spoken) and _NEGATIONS.isdisjoint(before):
            return _Ask(name, found.start(), found.end())
    return None


def _quotation(text: str, start: int) -> tuple[str, int] | None:
    """The quotation that begins here, after white space, and where it ends."""
    start += len(text[start : start + 8]) - len(text[start : start + 8].lstrip())
    closing = _QUOTES.get(text[start : start + 1], "")
    end = text.find(closing, start + 1, start + _QUOTED_CHARS) if closing else -1
    return (text[start + 1 : end].strip(), end + 1) if end > start + 1 else None


def _value(ask: _Ask, asked: str, end: int) -> str:
    """The words after an ask that its tool is to be given."""
    start, is_text = ask.value, ask.tool == "post_message"
    is_text = is_text or (ask.tool in _TITLED and " saying " in asked[start:end])
    for word in _WORD.finditer(asked, ask.value, end):
        start = word.start()
        if ask.tool in _ASKED_BY or word.group().lower() not in _FILLERS | _MARKERS:
            break
        is_text = word.group() in _MARKERS
    if quoted := _quotation(asked, start):
        return quoted[0] + (asked[quoted[1] : end].rstrip() if ask.tool in _TITLED else "")
    stop = None if is_text else _SENTENCE_END.search(asked, start, end)
    value = asked[start : stop.start() if stop else end].strip(None if is_text else _EDGES)
    for _ in range(3):  # "…, and then please" belongs to what follows
        rest, _, last = value.rpartition(" ")
        value = rest.strip(_EDGES) if last.lower() in _JOINTS else value
    return value


def _call(tool: FunctionSpec, said: str) -> ToolCall:
    """A call with what was said as its value, and else the least that the schema requires."""
    said = "" if tool.name in _ASKED_BY and not _ASKED_BY[tool.name][2] else said
    title, _, content = said.partition(" saying ")
    schema = tool.parameters or {}
    makes = Instances(schema, title if tool.name in _TITLED else said)
    known, made = makes.properties(schema), makes.make(schema)
    arguments = made if isinstance(made, dict) else {}
    if "content" in arguments and tool.name in _TITLED:
        arguments["content"] = content or f"{LABEL} {title}"
    if said and not arguments:
        texts = [name for name, part in known.items() if type_of(part) == "string"]
        arguments = {name: makes.make(known[name]) for name in texts[:1]}
    given = _json(said) if said.startswith("{") else {}
    return ToolCall(tool.name, arguments | {name: given[name] for name in known if name in given})


def _json(text: str) -> Any:
    """A text as JSON; `{}` where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {}


def _is_news(tool: str, result: str) -> bool:
    """Whether a heartbeat must tell of a result: an error, or notifications."""
    value = _json(result)
    return isinstance(value, dict) and bool(
        value.get("error") or (tool == "get_notifications" and value.get("notifications"))
    )


def _told(tool: str, result: str) -> str:
    value = _json(result)
    failed = isinstance(value, dict) and "error" in value
    return f"`{tool}` {'failed' if failed else 'brought'}: {_short(result, _RESULT_CHARS)}"


def _echo(words: str) -> str:
    lines = (line for line in words.splitlines() if not line.startswith(("<data ", "</data>")))
    said = "\n".join(lines).strip()
    return f"You wrote: “{_short(said, _ECHO_CHARS)}”" if said else "There is no message to answer."


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"


def _clock(asked: str, context: str) -> list[str]:
    if not _CLOCK.search(asked.lower()):
        return []
    now = next((line for line in context.splitlines() if line.startswith("Now:")), None)
    return [f"It is {now[4:].strip()}." if now else "Nothing that I was given tells the time."]


def _hints(request: ChatRequest) -> str:
    """What answers here, and what can be said to it."""
    names = [tool.name for tool in request.usable_functions]
    known = [f"“{_HINTS[name]}”" for name in names if name in _HINTS]
    known += [f"“use the {name} tool saying …”" for name in names if name not in _HINTS][:5]
    hints = f" I know {', '.join(known)}." if known else ""
    return f"No language model is connected: I answer by rules.{hints}"
