"""Reading plain English shallowly: sentences, key phrases, and what two texts have in common."""

from __future__ import annotations

import re
from functools import lru_cache

_COMMON = """
    a about above after again all also am an and any are as ask asked at be because been
    before being below but by can could did do does doing done down during each few for from
    further get give given go going got had has have having he help her here hers him his hi
    hello hey how i if i'd i'll i'm i've in into is it it's its itself just know kindly let
    let's like make many may me might more most much must my need new no nor not now of off ok
    okay on once one only or other our ours out over own please really said same say saying
    she should so some someone something such tell than thank thanks that that's the their
    them then there these they thing this those through to today too under until up us use
    very want was we were what what's when where which while who whom whose why will with
    without would wrote yes you you're your yours yourself don't doesn't didn't won't can't
    cannot couldn't wouldn't shouldn't isn't aren't wasn't weren't haven't hasn't we've we'll
    they're there's here's who's called named titled put write explain describe create add
    show list remember
"""
_STOP_WORDS = frozenset(_COMMON.split())
_WORD = re.compile(r"\w+(?:['-]\w+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_QUOTED = re.compile(r"[\"“]([^\"“”\n]{2,80})[\"”]|`([^`\n]{2,80})`")
_NAMED = re.compile(r"(?<![.!?\n]\s)(?<!^)\b[A-Z][\w-]+(?:\s+[A-Z][\w-]+){0,3}")
_AMOUNT = re.compile(
    r"[$€£]\s?\d[\d.,]*\w?|(?<![\w-])\d[\d.,:]*(?:%|\s?(?:percent|euros?|dollars?|days?|weeks?|months?"
    r"|hours?|minutes?|people|users?|customers?|steps?|items?|pages?|words?|k|m)\b)?(?![\w-])",
    re.IGNORECASE,
)
_DEADLINE = re.compile(
    r"\b(?:by|before|until|due|on)\s+(?:the\s+)?(?:end of\s+)?(?:next\s+|this\s+)?"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day\b"
    r"|\b(?:by|before|until|due)\s+(?:the\s+)?(?:end of\s+)?(?:next\s+|this\s+)?"
    r"(?:week|month|quarter|year|tomorrow|today|noon|midnight|q[1-4]|\d{1,4}[\w:/-]*(?:\s+[A-Z]\w+)?"
    r"|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?(?:\s+\d{1,2})?)\b",
    re.IGNORECASE,
)
_KEPT_TEXTS = 32
_LONGEST_PHRASE = 60
_SCANNED_CHARS = 20_000  # enough for any prompt of sense, and keeps a reply fast


def sentences(text: str) -> tuple[str, ...]:
    """The text's sentences and lines, without empty ones."""
    parts = (part.strip() for part in _SENTENCE_END.split(text[:_SCANNED_CHARS]))
    return tuple(part for part in parts if part)


def content_words(text: str) -> tuple[str, ...]:
    """The words that carry meaning, lower case, each once, in order of first appearance."""
    words = (match.group().lower() for match in _WORD.finditer(text[:_SCANNED_CHARS]))
    return tuple(dict.fromkeys(word for word in words if word not in _STOP_WORDS and len(word) > 2))


def key_phrases(text: str, limit: int = 6, *, dates: bool = True) -> tuple[str, ...]:
    """What the text is about: quoted strings, names, dates and amounts, then runs of plain words.

    Args:
        text: the text.
        limit: how many phrases at most.
        dates: whether deadlines and amounts count as well.
    """
    text = text[:_SCANNED_CHARS]
    undated = _DEADLINE.sub(". ", text)
    found = [match.group(1) or match.group(2) for match in _QUOTED.finditer(text)]
    found += [match.group() for match in _DEADLINE.finditer(text)] if dates else []
    found += [match.group() for match in _NAMED.finditer(undated)]
    found += sorted(_runs(undated), key=lambda run: -len(run.split()))
    found += [match.group() for match in _AMOUNT.finditer(text)] if dates else []
    phrases: list[str] = []
    for raw in found:
        phrase = re.sub(r"\s+", " ", raw).strip(" .,:;!?")
        known = any(phrase.lower() in other.lower() for other in phrases)
        if 0 < len(phrase) <= _LONGEST_PHRASE and not known and phrase.lower() not in _STOP_WORDS:
            phrases.append(phrase)
    whole = (one for one in phrases if not any(one in other and one != other for other in phrases))
    return tuple(whole)[:limit]


def _runs(text: str) -> list[str]:
    """Meaningful words that stand next to each other, up to three, without numbers alone."""
    runs: list[list[str]] = [[]]
    for match in re.finditer(rf"{_WORD.pattern}|[^\w\s]", text):
        word = match.group()
        plain = word.lower() not in _STOP_WORDS and len(word) > 2 and not word.isdecimal()
        if plain and len(runs[-1]) < 3:
            runs[-1].append(word)
        else:
            runs.append([word] if plain else [])
    return [" ".join(run) for run in runs if run]


def deadlines(text: str) -> tuple[str, ...]:
    """Dates that the text sets, as in “by Friday”, each once."""
    found = (match.group() for match in _DEADLINE.finditer(text[:_SCANNED_CHARS]))
    return tuple(dict.fromkeys(found))


def most_relevant(question: str, lines: tuple[str, ...]) -> str:
    """The line that shares most of the question's meaningful words, or "" where none is close."""
    asked = _stems(question)
    needed = min(2, len(asked))
    best, best_score = "", 0
    for line, stems in zip(lines, _stems_of_all(lines), strict=True):
        score = len(asked & stems)
        if score > best_score:
            best, best_score = line, score
    return best if needed and best_score >= needed else ""


def quoted(text: str, limit: int = 400) -> str:
    """The text in quotation marks; a longer one is given by its beginning and its end."""
    text = text.strip()
    if len(text) > limit:
        tail = limit // 4
        text = f"{text[: limit - tail].rstrip()} … {text[-tail:].lstrip()}"
    return f"“{text}”"


def shortened(text: str, limit: int = 160) -> str:
    """The text on one line, cut at a word's end."""
    text = re.sub(r"\s+", " ", text).strip()
    if len(text) <= limit:
        return text
    cut = text[:limit]
    return f"{cut.rsplit(' ', 1)[0] if ' ' in cut else cut}…"


def listed(items: tuple[str, ...], conjunction: str = "and") -> str:
    """“a”, “a and b”, “a, b and c”."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {conjunction} {items[-1]}"


def counted(number: int, noun: str) -> str:
    """“1 task”, “2 tasks”, “no tasks”."""
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def capitalised(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


@lru_cache(maxsize=_KEPT_TEXTS)
def _stems_of_all(lines: tuple[str, ...]) -> tuple[frozenset[str], ...]:
    """The lines' stems; kept, since the same instructions come with each request."""
    return tuple(_stems(line) for line in lines)


def _stems(text: str) -> frozenset[str]:
    return frozenset(_stem(word) for word in content_words(text))


def _stem(word: str) -> str:
    for ending in ("ings", "ing", "ies", "ied", "es", "ed", "s", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
