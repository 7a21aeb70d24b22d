"""Which of the tools at hand does what, by its name or as a person names it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from clasper_worker.offline_model.heads import Kind, is_asked
from clasper_worker.offline_model.masking import mask
from clasper_worker.offline_model.phrases import content_words
from clasper_worker.offline_model.protocol import FunctionSpec

_NAMES = {
    Kind.CREATE_TASK: ("create_task", "add_task", "new_task", "create_todo", "add_todo"),
    Kind.LIST_TASKS: ("list_tasks", "get_tasks", "show_tasks", "fetch_tasks", "list_todos"),
    Kind.CREATE_DOCUMENT: ("create_document", "write_document", "save_document", "create_doc"),
    Kind.GET_NOTIFICATIONS: ("get_notifications", "list_notifications", "check_notifications"),
    Kind.POST_MESSAGE: ("post_message", "send_message", "create_message", "add_comment"),
}
_ARTICLES = r"(?:(?:the|a|an|my|our|your|all|some)[\s_-]+)?"
_TOLD = re.compile(
    r"\b(?:use|using|call|calling|run|invoke|execute|try)\s+(?:(?:the|your)\s+)?"
    r"(?:(?:tool|function)\s+)?$",
    re.IGNORECASE,
)
_MENTION = re.compile(
    r"\b(?:don't|do not|never|not|without|avoid|what (?:does|is)|what's|how (?:does|do|to|can)|why"
    r"|did you|have you|explain|describe|about)(?:\W+\w+){0,2}\W*$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Naming:
    """A place in the words that names a tool.

    Attributes:
        tool: the tool.
        start: where its name begins in the words.
        clause: the words from there on to the sentence's end.
        rest: the clause after the tool's name.
    """

    tool: FunctionSpec
    start: int
    clause: str
    rest: str


def kind_of(name: str) -> Kind:
    """What a tool of this name does, as far as the name tells."""
    plain = "_".join(_words_of(name))
    for kind, known in _NAMES.items():
        if any(plain == item or plain.endswith(f"_{item}") for item in known):
            return kind
    return Kind.OTHER


def tool_for(kind: Kind, tools: tuple[FunctionSpec, ...]) -> FunctionSpec | None:
    """The first tool that does this, or None."""
    return next((tool for tool in tools if kind_of(tool.name) is kind), None)


def named_in(words: str, tools: tuple[FunctionSpec, ...]) -> tuple[Naming, ...]:
    """Where the words tell to use a tool by its name, in their order; each tool once."""
    for tool in tools:  # a name in quotes or backticks is a name, not a value
        words = re.sub(rf"([\"'`])({re.escape(tool.name)})\1", r" \2 ", words)
    masked = mask(words)
    found = []
    for tool in tools:
        match = _place(tool.name, masked.text)
        if match is None:
            continue
        end = re.search(r"[.!?](?=\s|$)|\n\n", masked.text[match.end() :])
        rest = masked.text[match.end() : match.end() + end.start() if end else None]
        clause = masked.plain(match.group() + rest).strip()
        found.append(Naming(tool, match.start(), clause, masked.plain(rest)))
    return tuple(sorted(found, key=lambda naming: naming.start))


def closest(words: str, tools: tuple[FunctionSpec, ...]) -> FunctionSpec:
    """The tool whose name and description share most with the words; the first of equals."""
    wanted = set(content_words(words))

    def shared(tool: FunctionSpec) -> int:
        about = f"{' '.join(_words_of(tool.name))} {tool.description or ''}"
        return len(wanted & set(content_words(about)))

    return max(tools, key=shared)


def related_to(words: str, tools: tuple[FunctionSpec, ...]) -> FunctionSpec | None:
    """A tool of no known kind whose name shares a meaningful word with the words, or None."""
    said = set(content_words(words))
    others = (tool for tool in tools if kind_of(tool.name) is Kind.OTHER)
    return next((tool for tool in others if said & set(_words_of(tool.name))), None)


def _place(name: str, text: str) -> re.Match[str] | None:
    words = [re.escape(word) for word in _words_of(name)]
    if not words:
        return None
    literal = rf"(?<![\w-]){re.escape(name)}(?![\w-])"
    spoken = rf"\b{_ARTICLES}".join([*[f"{word}[\\s_-]+" for word in words[:-1]], words[-1]])
    pattern = rf"{literal}|\b{spoken}\b"
    for match in re.finditer(pattern, text, re.IGNORECASE):
        before, after = text[max(0, match.start() - 60) : match.start()], text[match.end() :]
        told = _TOLD.search(before)
        tool_word = re.match(r"\s+(?:tool|function)\b", after, re.IGNORECASE)
        start = match.start() - len(told.group()) if told else match.start()
        if (told or tool_word or len(words) > 1 or is_asked(text, start)) and not _only_mentioned(
            text, start
        ):
            return match
    return None


def _only_mentioned(text: str, start: int) -> bool:
    return _MENTION.search(text[max(0, start - 60) : start]) is not None


def _words_of(name: str) -> tuple[str, ...]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return tuple(word.lower() for word in re.split(r"[_-]+", spaced) if word)
