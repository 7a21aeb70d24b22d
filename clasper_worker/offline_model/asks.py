"""What a person asks for, read from their words: which action, with what title, text, subject."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from clasper_worker.offline_model.heads import FEW, TASK, Kind, find_heads
from clasper_worker.offline_model.masking import QUOTE, Masked, mask
from clasper_worker.offline_model.phrases import capitalised

_SCANNED_CHARS = 20_000


@dataclass(frozen=True, slots=True)
class Ask:
    """One thing that the person asks for.

    Attributes:
        kind: the action.
        before: the person's words before it.
        clause: the person's words for it, with quotation marks.
        title: the title to give; "" where none was said.
        text: a task's description, or a message's content.
        subject: what a document is about; "" where it only points at something said before.
        doc_type: the kind of document, as in ``plan``.
        refers_back: it is about what was named before (“for it”, “to that task”).
        saves: a document is to keep what was said before (“save that as a document”).
    """

    kind: Kind
    before: str
    clause: str
    title: str = ""
    text: str = ""
    subject: str = ""
    doc_type: str = ""
    refers_back: bool = False
    saves: bool = False


_CALLED = re.compile(
    r"\b(?:called|named|titled|entitled|labelled|labeled|call it|call this|name it|title it"
    r"|with (?:the |a )?(?:title|name)(?: of)?|whose (?:title|name) is|(?:title|name)(?=\s*[:=]))"
    r"\s*[:=]?\s*",
    re.IGNORECASE,
)
_DESCRIBED = re.compile(
    r",?\s*(?:\b(?:and\s+)?(?:with|having|give it|using|include|add)\s+(?:the |a |an |this |as )?"
    r"(?:[\w-]+ )?description(?:\s+(?:of|that says|saying|is|as))?|\b(?:and\s+)?(?:is\s+)?"
    r"described (?:as|by|with)|\bdescribe it as|\bdescription(?:\s+is)?(?=\s*[:=]| is)"
    r"|\bdescription(?= " + QUOTE + r"))\s*[:=]?\s*",
    re.IGNORECASE,
)
_ABOUT = re.compile(
    r"^\s*(?:,\s*)?(?:for|on|about|of|to|covering|describing|regarding|around|that covers|on how to"
    r"|that describes|explaining|outlining|[:\u2013\u2014-])\s*",
    re.IGNORECASE,
)
_STEP_COUNT = re.compile(
    r"^\s+(?:with|in|of)\s+(?:[\w-]+\s+){1,2}(?:steps?|parts?)\b", re.IGNORECASE
)
_SAYING = re.compile(
    r"\b(?:saying|says|say|which says|that says|reading|stating|telling (?:them|everyone|the \w+)"
    r"|with (?:the )?(?:text|content|words|body|message)(?: of)?)\b\s*[:,]?\s*"
    r"(?:that\s+(?=\w))?|:\s*",
    re.IGNORECASE,
)
_BACKWARD = re.compile(
    r"^(?:it|this|that|them|these|those|this one|that one|(?:the|this|that|my|our)\s+(?:new\s+)?"
    r"(?:user's\s+)?(?:task|request|message|above|following|same|below|ask|project|thing|text)"
    r"(?:\s+(?:below|above))?)\b\W*$",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[;\n]")
_TRAILING = re.compile(
    r"(?:,?\s+(?:and\s+then|and|then|also|plus|but|after that|as well|too|please|thanks|thank you"
    r"|for me|for us|if you can|now|right away|asap)|[\s,.;:!?*-]+)+$",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r",\s+(?:because|since|so|as|which|please|thanks|it|but|then|with)\b"
    r"|,?\s+(?:(?:with|and)\s+(?:a\s+|the\s+)?(?:status|priority|due date|deadline|label)\b"
    r"|(?:status|priority|due|deadline|label|limit)\s*[:=])"
    r"|\s+(?:in|on|to|under)\s+(?:my|the|our)\s+(?:[\w-]+\s+)?"
    r"(?:list|board|project|backlog|workspace|tracker|mission control|queue)\b",
    re.IGNORECASE,
)
_BARE_TITLE = re.compile(
    rf"\s*{QUOTE}|[ \t]+(?!(?:in|on|at|under|that|which|who|when|if|and|or|now|please|as|by|from"
    r"|for|into|via|with|using|then|list|here|so|but|is|are|today|again|too|i|you|we|instead|about"
    r"|to|called|tomorrow|due|assigned)\b)\w",
    re.IGNORECASE,
)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+(.+)$", re.MULTILINE)
_AND_ALSO = re.compile(
    rf"\s*(?:,|and|or|&)\s*(?:and\s+)?{FEW}(?:(?P<tasks>{TASK})|notifications?|alerts)\b",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(r",\s*(?:and\s+)?|\s+and\s+|\s*&\s*", re.IGNORECASE)


def find_asks(words: str) -> tuple[Ask, ...]:
    """What the words ask for, in the order in which it is asked."""
    masked = mask(_unwrapped(words)[:_SCANNED_CHARS])
    heads = find_heads(masked.text)
    asks: list[Ask] = []
    for index, (kind, match) in enumerate(heads):
        end = heads[index + 1][1].start() if index + 1 < len(heads) else len(masked.text)
        asks += _read(kind, match, masked, end)
    return tuple(asks)


def _unwrapped(words: str) -> str:
    """A message that is one quotation as a whole is read as if it were not quoted."""
    words = words.strip()
    once = len(words) > 2 and words[0] in "\"'\u201c" and words[0] not in words[1:-1]
    return words[1:-1] if once and words[-1] in "\"'\u201d" else words


def _read(kind: Kind, head: re.Match[str], masked: Masked, end: int) -> list[Ask]:
    tail = masked.text[head.end() : end]
    clause = _TRAILING.sub("", masked.plain(masked.text[head.start() : end])).strip()
    ask = Ask(kind, masked.plain(masked.text[: head.start()]), clause)
    if kind is Kind.CREATE_TASK:
        return _tasks(ask, head, tail, masked)
    if kind is Kind.CREATE_DOCUMENT:
        return [_document(ask, head, tail, masked)]
    if kind is Kind.POST_MESSAGE:
        return [_message(ask, tail, masked)]
    if kind is Kind.OTHER:
        return []
    both = _AND_ALSO.match(tail)
    other = {Kind.LIST_TASKS: Kind.GET_NOTIFICATIONS, Kind.GET_NOTIFICATIONS: Kind.LIST_TASKS}[kind]
    joined = both is not None and (both.group("tasks") is None) == (kind is Kind.LIST_TASKS)
    return [ask, replace(ask, kind=other)] if joined else [ask]


def _tasks(ask: Ask, head: re.Match[str], tail: str, masked: Masked) -> list[Ask]:
    described = _DESCRIBED.search(tail)
    description = ""
    if described:
        description = _bare(tail[described.end() :], masked, asides=False)
        tail = tail[: described.start()]
    ask = replace(ask, text=description)
    item = head.groupdict().get("item")
    if item:
        return [replace(ask, title=capitalised(_bare(item, masked)))]
    within = masked.values(head.group())
    if within:
        return [replace(ask, title=within[0].strip())]
    titles = _titles(head.group(), tail, masked)
    back = bool(re.match(r"\s*(?:for|about|from)\s+(?:it|this|that)\b", tail))
    return [replace(ask, title=title, refers_back=back) for title in titles or ("",)]


def _titles(head: str, tail: str, masked: Masked) -> tuple[str, ...]:
    several = re.search(r"(?:tasks|tickets|to-?dos|todos|cards|items)$", head, re.IGNORECASE)
    bullets = tuple(_bare(match.group(1), masked) for match in _BULLET.finditer(tail))
    if several and bullets:
        return bullets
    called = _CALLED.search(tail[:200])
    about = _ABOUT.match(tail)
    change: Callable[[str], str] = str
    if called:
        rest = tail[called.end() :]
    elif about and not _BACKWARD.match(tail[about.end() :].strip(" .!?")):
        rest, change = tail[about.end() :], capitalised
    elif _BARE_TITLE.match(tail):
        rest = tail.lstrip()
    else:
        return ()
    if several:
        sentence = _first_sentence(rest)
        parts = masked.values(sentence) or _SEPARATOR.split(_TRAILING.sub("", sentence))
        return tuple(filter(None, (change(_bare(part, masked)) for part in parts)))
    title = change(_bare(rest, masked))
    return (title,) if title else ()


def _document(ask: Ask, head: re.Match[str], tail: str, masked: Masked) -> Ask:
    noun = head.group("noun").lower()
    tail = _STEP_COUNT.sub("", tail)
    called = _CALLED.search(_first_sentence(tail))
    title, rest = "", tail
    if called:
        title = _bare(tail[called.end() :], masked, stop=r"\s+(?:for|about|on|covering)\s+")
        before, after = tail[: called.start()], tail[called.end() :]
        rest = (
            before
            if _ABOUT.match(before)
            else re.sub(
                rf"^\s*(?:{QUOTE}|.*?(?=\s+(?:for|about|on|covering)\s))", "", after, count=1
            )
        )
    elif masked.values(head.group()):
        title = masked.values(head.group())[0]
    about = _ABOUT.match(rest)
    subject = _bare(rest[about.end() :], masked, asides=False) if about else ""
    back = bool(_BACKWARD.match(subject)) or subject.lower().startswith(("based on", "from the"))
    return replace(
        ask,
        title=title,
        subject="" if back else subject,
        doc_type={"doc": "document", "page": "document"}.get(noun, noun).replace(" ", "_"),
        saves=head.groupdict().get("kept") is not None,
        refers_back=back or re.match(r"\s*(?:based on|from)\b", tail) is not None,
    )


def _message(ask: Ask, tail: str, masked: Masked) -> Ask:
    saying = _SAYING.search(tail[:200])
    quotes = masked.values(_first_sentence(tail))
    back = bool(re.match(r"\s*(?:to|on|in|for|under)\s+(?:it|that|this|the new)\b", tail))
    if saying:
        rest = tail[saying.end() :]
        text = _bare(rest, masked, asides=False, whole_line=True)
    else:
        text = quotes[0] if quotes else ""
    return replace(ask, text=text.strip(), refers_back=back)


def _bare(
    rest: str, masked: Masked, *, asides: bool = True, whole_line: bool = False, stop: str = ""
) -> str:
    """The value at the start of ``rest``: a quoted string, or the words up to where they end."""
    rest = rest.lstrip(" \t*:=,")
    if re.match(QUOTE, rest):
        return masked.value(rest[0])
    sentence = rest.lstrip("\n").split("\n", 1)[0] if whole_line else _first_sentence(rest)
    for pattern in (_ASIDE.pattern if asides else "", stop):
        found = re.search(pattern, sentence, re.IGNORECASE) if pattern else None
        if found and found.start() > 0:
            sentence = sentence[: found.start()]
    return masked.plain(_TRAILING.sub("", sentence)).strip(" *_")


def _first_sentence(text: str) -> str:
    text = text.lstrip("\n ")
    end = _SENTENCE_END.search(text)
    return text[: end.start()] if end else text
