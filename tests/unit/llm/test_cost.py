"""What a turn cost."""

from clasper_worker.llm.cost import turn_cost
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
