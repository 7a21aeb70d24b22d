"""Text from outside takes time by its length, and what is huge is cut before it is read.

Growth is measured, not time: see `tests.growth`.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from clasper_worker.config.local_time import ActiveHours
from clasper_worker.engine.circuit.retry_after import retry_after
from clasper_worker.engine.queue.wellformed import measure
from clasper_worker.llm.messages import ChatMessage, ToolCall
from clasper_worker.llm.refusal import read_refusal
from clasper_worker.llm.response_body import MAX_ANSWER_BYTES, BrokenAnswerError, read_answer
from clasper_worker.llm.spoken import without_controls, without_thoughts
from clasper_worker.llm.token_estimate import estimate_tokens
from clasper_worker.llm.tokens import TokenCounter
from clasper_worker.observability.redaction import redacted
from clasper_worker.periodic.heartbeat import is_quiet
from clasper_worker.prompt.retrieval.lexical import terms
from clasper_worker.prompt.roles import validate_role
from clasper_worker.prompt.sanitize import (
    fence_data,
    json_for_model,
    shorten,
    strip_unsafe,
    unfence_data,
)
from clasper_worker.prompt.workspace.memory import split_memory
from clasper_worker.prompt.workspace.skill_file import SkillError, parse_skill
from clasper_worker.tools.registry import Tool, ToolArguments, Toolbox, ToolContext
from clasper_worker.turn.request import split_session_key
from tests.growth import is_linear

Run = Callable[[str], object]


def quietly(run: Run, *refusals: type[Exception]) -> Run:
    def attempt(text: str) -> object:
        try:
            return run(text)
        except refusals:
            return None

    return attempt


def a_long_name(text: str) -> object:
    """One field of a long name with as many values in it."""
    return measure({text: [0] * len(text)})


READERS: dict[str, Run] = {
    "strip_unsafe": strip_unsafe,
    "fence_data": lambda text: fence_data("x", text),
    "its label": lambda text: fence_data(text, "x"),
    "unfence_data": lambda text: unfence_data(f'<data source="x">\n{text}'),
    "shorten": lambda text: shorten(text, len(text) - 1, "…"),
    "json_for_model": lambda text: json_for_model({"a": text}, 10**9, "…"),
    "split_memory": lambda text: list(split_memory("MEMORY.md", text)),
    "a heading": lambda text: list(split_memory("MEMORY.md", f"# {text}")),
    "a skill": quietly(lambda text: parse_skill("skills/x/SKILL.md", text), SkillError),
    "a skill's front matter": quietly(
        lambda text: parse_skill("skills/x/SKILL.md", f"---\ndescription: {text}\n---\n"),
        SkillError,
    ),
    "a skill's body": quietly(
        lambda text: parse_skill("skills/x/SKILL.md", f"---\ndescription: x\n---\n{text}"),
        SkillError,
    ),
    "is_quiet": is_quiet,
    "is_quiet between": lambda text: is_quiet(f"a{text}HEARTBEAT_OK{text}a"),
    "terms": terms,
    "estimate_tokens": estimate_tokens,
    "counted tokens": lambda text: TokenCounter().count(ChatMessage("user", text)),
    "redacted": lambda text: redacted({"message": text, "user_id": text}),
    "without_controls": without_controls,
    "without_thoughts": without_thoughts,
    "without_thoughts within": lambda text: without_thoughts(f"<think>{text}"),
    "read_refusal": lambda text: read_refusal(400, {"error": {"message": text}}),
    "read_answer": quietly(lambda text: read_answer(text.encode()), BrokenAnswerError),
    "retry_after": lambda text: retry_after({"retry-after": text}),
    "a rate limit": lambda text: retry_after({"x-ratelimit-reset-requests": text}),
    "a role": quietly(validate_role, ValueError),
    "a session key": quietly(split_session_key, ValueError),
    "active hours": quietly(ActiveHours.parse, ValueError),
    "measure": lambda text: measure({"a": text}),
    "a long name": a_long_name,
}

HOSTILE = (
    " ", "\n", "<", "< ", "<\u200c", "-", "---\n", "#", "# ", "`", "```\n", "1", "1:", ".", "*",
    "\t\n",
    "<think>", "</think>", "`</think>", "<d a", "\r", "\x00", "é ", "\u0300\u0316", "\u4e00",
    "> ", "HEARTBEAT_OK ", "- a\n", "a: ", "{", "[", '"', "user:", "&a ", "*a ",
)  # fmt: skip


@pytest.mark.parametrize("run", READERS.values(), ids=READERS)
def test_what_reads_text_from_outside_takes_time_by_its_length(run: Run) -> None:
    for repeated in HOSTILE:
        for head, end in (("", ""), ("<", "x"), ("a", "a"), ("---\n", "\n---\nx")):

            def make(size: int, parts: tuple[str, str, str] = (head, repeated, end)) -> str:
                first, one, last = parts
                return first + one * size + last

            assert is_linear(run, make), (head, repeated, end)


def test_the_measurement_tells_a_reader_that_is_quadratic() -> None:
    def quadratic(text: str) -> object:
        return sum(one == other for one in text for other in text)

    assert not is_linear(quadratic, lambda size: "a" * size)


class Watched(dict[str, Any]):
    """A mapping that counts how much of it is read."""

    read = 0

    def items(self) -> Any:
        for item in super().items():
            Watched.read += 1
            yield item


async def test_of_a_huge_tool_result_no_more_is_read_than_the_model_is_told() -> None:
    huge = Watched({str(number): "x" * 100 for number in range(50_000)})

    class Nothing(ToolArguments):
        pass

    async def give(_: ToolContext, __: Nothing) -> Mapping[str, Any]:
        return huge

    Watched.read = 0
    toolbox = Toolbox([Tool("f", "", Nothing, give)])
    told = (await toolbox.call(cast("ToolContext", None), ToolCall("1", "f", "{}"))).text
    assert "was cut here" in told
    assert len(told) < 41_000
    assert Watched.read < 1_000


@pytest.mark.parametrize("size", [0, 1, 97, 98, 99, 100, 101, 5_000])
def test_a_value_that_was_cut_says_so_and_keeps_to_its_limit(size: int) -> None:
    for value in ({"a": "x" * size}, ["x"] * size, "x" * size, {"a": ["\x00" * size, "x"]}):
        text = json_for_model(value, 100, "… cut")
        whole = json.dumps(value).replace("\\u0000", "")
        assert len(text) <= 100
        assert text == whole or text.endswith("… cut")


def test_an_answer_that_is_too_long_to_be_read_at_once_is_none() -> None:
    with pytest.raises(BrokenAnswerError, match="bytes"):
        read_answer(b" " * (MAX_ANSWER_BYTES + 1))
