"""Plans and documents drafted from the words of a request: its own items, dates and names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from clasper_worker.offline_model.conversation import LABEL
from clasper_worker.offline_model.phrases import (
    capitalised,
    deadlines,
    key_phrases,
    listed,
    sentences,
    shortened,
)

_NUMBER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_STEP_COUNT = re.compile(
    rf"\b(\d{{1,2}}|{'|'.join(_NUMBER_WORDS)})[\s-]+(?:(?:clear|short|simple|concrete|main|key|easy)\s+)?"
    r"(?:steps?|points?|parts?|stages?|phases?|bullets?|items?)\b",
    re.IGNORECASE,
)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+(.+)$", re.MULTILINE)
_OPENERS = re.compile(
    r"^(?:(?:hi|hello|hey|ok|okay|so|and|then|also|please|kindly|can you|could you|would you"
    r"|(?:we|i) (?:need|want|have|would like|plan|'d like) to|(?:i|we)'d like to|let's"
    r"|help me(?: to)?)\b[\s,]*)+",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(
    r";\s*|,?\s+(?:and then|then)\s+|,\s+and\s+|,\s+|\s+and\s+(?=(?:add|agree|announce|ask|book"
    r"|build|buy|call|check|choose|clean|collect|compare|confirm|create|decide|design|draft|email|file|find"
    r"|finish|fix|get|give|hire|inform|install|interview|invite|launch|learn|list|make|measure|meet"
    r"|migrate|move|notify|open|order|organi[sz]e|pay|pick|plan|prepare|present|print|publish|read"
    r"|record|release|remove|renew|replace|report|review|run|schedule|sell|send|set|share|ship|sign"
    r"|start|switch|talk|teach|tell|test|track|train|update|upload|visit|write)\b)",
    re.IGNORECASE,
)
_LIST_INTRO = re.compile(r"^[^:\n]*\w\s+\w+:\s+(?=[^\n]*[,;])")
_MAX_STEPS = 12
_USUAL_STEPS = 5

# How each item of the request is followed up, in turn.
_FOLLOW_UPS = (
    "Name an owner and the first concrete action.",
    "Agree how everyone will see that it is done.",
    "Note what it depends on, and start that part first.",
    "Put it in the calendar and say who needs to know.",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a plan: what to do, and how."""

    action: str
    detail: str


def wanted_steps(words: str) -> int | None:
    """How many steps the words ask for (“3-step”, “in four steps”), or None."""
    match = _STEP_COUNT.search(words)
    if match is None:
        return None
    found = match.group(1).lower()
    number = int(found) if found.isdigit() else _NUMBER_WORDS.index(found) + 1
    return max(1, min(number, _MAX_STEPS))


def goal_of(text: str, limit: int = 120) -> str:
    """What a text is after: its first sentence, short and without courtesies."""
    first = next(iter(sentences(text)), "")
    head, colon, _ = first.partition(": ")
    first = head if colon and len(head.split()) > 1 else first
    return shortened(_OPENERS.sub("", first).strip(" .,:;!?*-"), limit)


def plan_steps(goal: str, material: str, count: int | None) -> tuple[Step, ...]:
    """The steps of a plan: the items that the material names, between steps that any work needs.

    Args:
        goal: what the plan is for, in a few words.
        material: everything that was said about it.
        count: how many steps; None for as many as the items call for.
    """
    items = _items(material)
    count = count or max(_USUAL_STEPS, min(len(items) + 2, _MAX_STEPS))
    if len(items) >= count:
        kept, rest = items[: count - 1], items[count - 1 :]
        items = (*kept, "; ".join(rest))
    around = _usual_steps(goal, material, has_items=bool(items))[: count - len(items)]
    placed = sorted(around, key=lambda entry: entry[0])
    before = [step for place, step in placed if place < 0]
    after = [step for place, step in placed if place >= 0]
    own = [
        Step(capitalised(item), _FOLLOW_UPS[index % len(_FOLLOW_UPS)])
        for index, item in enumerate(items)
    ]
    return (*before, *own, *after)


def numbered(steps: tuple[Step, ...]) -> str:
    """The steps as a numbered Markdown list."""
    return "\n".join(
        f"{number}. **{step.action.rstrip('.')}.** {step.detail}"
        for number, step in enumerate(steps, 1)
    )


def plan_text(goal: str, material: str, count: int | None) -> str:
    """A plan as a reply: the goal and its steps."""
    fixed = deadlines(material)
    timing = f" The request names a date: {listed(fixed)}." if fixed else ""
    steps = numbered(plan_steps(goal, material, count))
    return f"Plan: **{capitalised(goal)}**.{timing}\n\n{steps}"


def document_title(doc_type: str, subject: str) -> str:
    """A title for a document that was asked for without one."""
    subject = re.sub(r"^(?:the|a|an|our|my|your)\s+", "", subject, flags=re.IGNORECASE)
    kind = capitalised(doc_type.replace("_", " "))
    return f"{kind}: {shortened(subject, 100)}" if subject else kind


def document_text(
    title: str,
    doc_type: str,
    subject: str,
    request: str,
    details: str,
    background: tuple[str, ...],
) -> str:
    """A document in Markdown.

    Args:
        title: its heading.
        doc_type: ``plan`` gets goal, steps, risks; others background, main points, next steps.
        subject: what it is about.
        request: the words that asked for it.
        details: what else those words say about it; may be empty.
        background: lines from the conversation or instructions that bear on it.
    """
    note = (
        f"{LABEL} Drafted by rules from the words of the request; no language model was connected."
    )
    goal, material = goal_of(subject), f"{subject}\n{details}"
    points = key_phrases(material, dates=False)
    steps = plan_steps(goal, details or subject, wanted_steps(request))
    sections = {
        "Goal" if doc_type == "plan" else "Purpose": f"{capitalised(goal)}.",
        "What was asked": f"> {shortened(request, 600)}",
        "What is already known": "\n".join(f"- {shortened(line, 300)}" for line in background),
    }
    if doc_type != "plan":
        sections["Main points"] = "\n".join(
            f"- **{capitalised(point)}**: what is true today, what should change, and who decides."
            for point in points[:5]
        )
    sections["Steps" if doc_type == "plan" else "Next steps"] = numbered(steps)
    sections["Risks and open questions"] = _questions(goal, points, deadlines(material))
    body = "\n\n".join(f"## {name}\n\n{text}" for name, text in sections.items() if text)
    return f"{note}\n\n# {title}\n\n{body}\n"


def _questions(subject: str, points: tuple[str, ...], fixed: tuple[str, ...]) -> str:
    questions = [
        f"- Who decides that “{shortened(subject, 80)}” is finished, and by what sign?",
        f"- Is “{fixed[0]}” fixed, or may it move?" if fixed else "- By when? No date was given.",
    ]
    questions += [f"- What could go wrong with {point}?" for point in points[:1]]
    return "\n".join(questions)


def _usual_steps(goal: str, material: str, *, has_items: bool) -> list[tuple[int, Step]]:
    """Steps that most work needs, the most needed first, each with its place around the items."""
    points = key_phrases(material, 3, dates=False)
    about = listed(points) or goal
    fixed = deadlines(material)
    when = f", and check that “{fixed[0]}” can be met" if fixed else ", and set a date"
    work = Step(
        f"Do the work: {shortened(goal, 60)}",
        "Piece by piece, what others wait for first; write decisions down as they fall.",
    )
    steps = [
        (9, "Review and share", "Check the result against the goal, share it, note what is next."),
        (-9, "Settle the goal", f"Write down in one sentence what “done” means{when}."),
        (-8, "Collect what is known", f"Facts on {about}; list what is missing and who has it."),
        (-7, "Split the work", "Pieces of a day or less, in the order in which they depend."),
        (5, "Have it checked", "Ask someone who did not do the work to try the result."),
        (-6, "Look at the risks", f"What could go wrong with {about}, and what then?"),
        (7, "Tell those affected", "Say what changes for them, from when, and whom to ask."),
        (-5, "Name the owners", "One person for each piece, who says when it is done."),
        (4, "Hold a checkpoint", "Half-way, compare with the goal and drop what is not needed."),
        (8, "Measure", "Pick one figure that shows whether it helped, and read it twice."),
        (-4, "Start with the riskiest piece", "What you know least about teaches you most."),
        (10, "Tidy up", "Close what is open, and write down what to do differently."),
    ]
    usual = [(place, Step(action, detail)) for place, action, detail in steps]
    return usual if has_items else [(0, work), *usual]


def _items(material: str) -> tuple[str, ...]:
    """The pieces of work that the material names: bullets, else clauses that stand as such."""
    found = [match.group(1) for match in _BULLET.finditer(material)]
    if not found:
        found = [
            part
            for sentence in sentences(material)
            if not sentence.endswith("?")
            for part in _CLAUSE_END.split(_LIST_INTRO.sub("", sentence))
        ]
    items = (_OPENERS.sub("", re.sub(r"\s+", " ", item)).strip(" .,:;!?*-") for item in found)
    kept = tuple(dict.fromkeys(shortened(item) for item in items if len(item.split()) > 1))
    return kept if len(kept) > 1 else ()
