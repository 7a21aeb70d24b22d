"""Model names and the models of a tier."""

from typing import Any

import pytest

from clasper_worker.errors import ConfigurationError
from clasper_worker.llm.providers.catalogue import ModelRef, model_chain, parse_model


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("gpt-4o-mini", "gpt-4o-mini"),
        ("openai/gpt-4o", "gpt-4o"),
        (" gpt-4o ", "gpt-4o"),
        ("meta-llama/Llama-3-8B", "meta-llama/Llama-3-8B"),
        ("openai/meta-llama/Llama-3-8B", "meta-llama/Llama-3-8B"),
    ],
)
def test_a_prefix_is_a_provider_only_if_it_names_one(value: str, expected: str) -> None:
    ref = parse_model(value, default_provider="openai", variable="V")
    assert ref == ModelRef("openai", expected)


@pytest.mark.parametrize("value", ["", "openai/", "anthropic/claude", "openrouter/a/b"])
def test_a_name_that_cannot_be_served_names_its_variable(value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_model(value, default_provider="openai", variable="LLM_MODEL_BEST")
    assert caught.value.details["variable"] == "LLM_MODEL_BEST"


def test_a_tier_is_its_own_model_then_the_fallback(settings_of: Any) -> None:
    settings = settings_of(llm_model_default="d", llm_model_cheap="c", llm_model_fallback="f")
    names = {tier: [ref.name for ref in model_chain(settings, tier)]
             for tier in ("default", "cheap", "best")}  # fmt: skip
    assert names == {"default": ["d", "f"], "cheap": ["c", "f"], "best": ["d", "f"]}


def test_a_fallback_equal_to_the_model_is_not_tried_twice(settings_of: Any) -> None:
    settings = settings_of(llm_model_default="d", llm_model_fallback="d")
    assert len(model_chain(settings)) == 1
