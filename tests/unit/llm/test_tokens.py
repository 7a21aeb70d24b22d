import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.llm.messages import ChatMessage, ToolCall
from clasper_worker.llm.providers.catalogue import ModelRef
from clasper_worker.llm.tokens import (
    MESSAGE_TOKENS,
    TokenCounter,
    estimated,
    known_window,
    sampled,
    tiktoken_encode,
)

MESSAGE = ChatMessage("user", "x" * 400)


def test_without_anything_better_tokens_are_estimated() -> None:
    counter = TokenCounter()
    assert (counter.method, counter.count(MESSAGE)) == ("estimate", 100 + MESSAGE_TOKENS)


def test_an_encoding_counts_exactly_and_tool_calls_too() -> None:
    counter = TokenCounter(len)
    call = ChatMessage("assistant", "ab", (ToolCall("1", "find", '{"a": 1}'),))
    assert (counter.method, counter.count(call)) == ("tiktoken", MESSAGE_TOKENS + 2 + 4 + 8)


def test_what_the_provider_counted_comes_before_both() -> None:
    counter = TokenCounter(len)
    counter.learn(1_000, 1_500)
    assert counter.method == "provider"
    assert counter.count(MESSAGE) == 156
    for _ in range(100):
        counter.learn(1_000, 1_000)
    assert counter.count(MESSAGE) in {104, 105}


@pytest.mark.parametrize(("estimate", "actual"), [(1_000, 0), (10, 500), (0, 0)])
def test_counts_that_say_nothing_are_not_learned_from(estimate: int, actual: int) -> None:
    counter = TokenCounter()
    counter.learn(estimate, actual)
    assert counter.method == "estimate"


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(-1, 10**9)), max_size=30))
def test_no_provider_can_make_counts_absurd(counts: list[tuple[int, int]]) -> None:
    counter = TokenCounter()
    for estimate, actual in counts:
        counter.learn(estimate, actual)
    assert estimated(MESSAGE) * 0.5 <= counter.count(MESSAGE) <= estimated(MESSAGE) * 3 + 1


@pytest.mark.parametrize(("name", "tokens"), [("gpt-4o-mini", 128_000), ("no-such-model", None)])
def test_a_models_window_is_known_or_not(name: str, tokens: int | None) -> None:
    assert known_window(ModelRef("openai", name)) == tokens


class StubTiktoken:
    """Speaks what is used of tiktoken's interface."""

    def encoding_name_for_model(self, model: str) -> str:
        return {"gpt-4o": "o200k_base"}[model]

    def get_encoding(self, name: str) -> Any:
        assert name == "o200k_base"
        return SimpleNamespace(encode_ordinary=lambda text: text.split())


def test_tiktoken_is_used_only_where_its_data_is_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", StubTiktoken())
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    assert tiktoken_encode("gpt-4o") is None
    # The name that tiktoken gives to what it downloads from the encoding's address.
    (tmp_path / "fb374d419588a4632f3f557e76b4b70aebbca790").touch()
    encode = tiktoken_encode("gpt-4o")
    assert encode is not None
    assert encode("one two three") == 3
    assert tiktoken_encode("unknown-model") is None


def test_without_tiktoken_there_is_no_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    assert tiktoken_encode("gpt-4o") is None


def test_a_long_text_is_counted_by_its_ends() -> None:
    seen: list[int] = []

    def encode(text: str) -> int:
        seen.append(len(text))
        return len(text) // 4

    count = sampled(encode)
    assert count("a" * 1_000) == 250
    assert count("a" * 1_000_000) == 250_000
    assert max(seen) <= 4_000
