"""What a turn cost."""

from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot
from hypothesis import assume, given
from hypothesis import strategies as st

from clasper_worker.llm.cost import _price, turn_cost
from clasper_worker.llm.messages import ModelReply, TokenUsage


def reply(model: str, prompt: int = 1_000_000, completion: int = 0) -> ModelReply:
    return ModelReply("x", (), TokenUsage(prompt, completion), "openai", model)


def test_a_known_models_cost_is_the_sum_over_its_calls() -> None:
    one = turn_cost([reply("gpt-4o-mini", 1000, 100)])
    two = turn_cost([reply("gpt-4o-mini", 1000, 100)] * 2)
    assert one.totalCost
    assert one.inputCost is not None
    assert one.outputCost is not None
    assert abs(one.totalCost - one.inputCost - one.outputCost) < 1e-12
    assert two.totalCost == 2 * one.totalCost
    assert (two.inputTokens, two.outputTokens, two.currency) == (2000, 200, "USD")


def test_calls_of_two_models_are_priced_each_at_its_own() -> None:
    small, large = turn_cost([reply("gpt-4o-mini")]), turn_cost([reply("gpt-4o")])
    both = turn_cost([reply("gpt-4o-mini"), reply("gpt-4o")])
    assert small.totalCost
    assert large.totalCost
    assert both.totalCost == small.totalCost + large.totalCost
    assert both.model == "gpt-4o"


def test_cached_tokens_cost_less() -> None:
    cached = ModelReply("x", (), TokenUsage(1_000_000, 0, 1_000_000), "openai", "gpt-4o-mini")
    full, reduced = turn_cost([reply("gpt-4o-mini")]).totalCost, turn_cost([cached]).totalCost
    assert full is not None
    assert reduced is not None
    assert reduced < full


def test_an_unknown_model_costs_null_with_the_reason_not_zero() -> None:
    cost = turn_cost([reply("gpt-4o-mini"), reply("nobodys-model-1")])
    assert (cost.inputCost, cost.outputCost, cost.totalCost) == (None, None, None)
    assert cost.reason is not None
    assert "nobodys-model-1" in cost.reason


LISTED = [(provider.id, model.id) for provider in get_snapshot().providers
          for model in provider.models]  # fmt: skip
TIERED = ("google", "gemini-2.5-pro")  # more a token above 200,000 tokens


def by_genai_prices(
    provider: str, model: str, prompt: int, completion: int, cached: int
) -> tuple[Decimal, Decimal] | None:
    used = Usage(input_tokens=prompt, output_tokens=completion, cache_read_tokens=cached)
    try:
        found = calc_price(used, model, provider_id=provider)
    except (LookupError, ValueError, ArithmeticError):
        return None
    return found.input_price, found.output_price


@given(
    st.one_of(st.sampled_from(LISTED), st.just(TIERED)),
    st.integers(0, 1_000_000),
    st.integers(0, 200_000),
    st.floats(0, 1),
)
def test_every_price_is_the_one_that_genai_prices_gives(
    listed: tuple[str, str], prompt: int, completion: int, share_cached: float
) -> None:
    used = (prompt, completion, int(prompt * share_cached))
    expected = by_genai_prices(*listed, *used)
    assume(expected is not None)  # some ids are not what the model is asked for by
    assert _price(*listed, *used) == expected


@pytest.mark.parametrize("prompt", [199_999, 200_000, 200_001, 400_000])
def test_a_price_that_depends_on_the_size_is_asked_for_each_size(prompt: int) -> None:
    assert _price(*TIERED, prompt, 10, 0) == by_genai_prices(*TIERED, prompt, 10, 0)
    rates = {_price(*TIERED, size, 0, 0)[0] / size for size in (1000, 400_000)}  # type: ignore[index]
    assert len(rates) == 2


def test_a_price_that_changes_with_the_date_or_the_hour_is_todays() -> None:
    used = (1000, 100, 10)
    assert _price("deepseek", "deepseek-chat", *used) == by_genai_prices(
        "deepseek", "deepseek-chat", *used
    )
