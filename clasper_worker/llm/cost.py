"""What a turn's model calls used, in tokens, and cost, in USD."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache

from pydantic import BaseModel, ConfigDict

from clasper_worker.llm.messages import ModelReply


class Usage(BaseModel):
    """Tokens, as the provider counted them, summed over the turn's model calls."""

    model_config = ConfigDict(frozen=True)

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class Cost(BaseModel):
    """What the turn cost, in ``currency``.

    Where no price is known for the model, the three costs are None and ``reason`` says why; never
    zero, which would read as free.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    inputTokens: int  # noqa: N815 - the contract's spelling
    outputTokens: int  # noqa: N815 - the contract's spelling
    inputCost: float | None  # noqa: N815 - the contract's spelling
    outputCost: float | None  # noqa: N815 - the contract's spelling
    totalCost: float | None  # noqa: N815 - the contract's spelling
    currency: str = "USD"
    reason: str | None = None


def turn_cost(replies: Iterable[ModelReply]) -> Cost:
    """Price a turn's model calls, in USD, each at its own model's price.

    Prices come from the ``genai-prices`` package's data. If any call's model has no known price,
    all costs are None and ``reason`` names it: a partial sum would understate.
    """
    calls = list(replies)
    input_tokens = sum(call.usage.prompt for call in calls)
    output_tokens = sum(call.usage.completion for call in calls)
    model = calls[-1].model if calls else ""
    input_cost = output_cost = Decimal(0)
    for call in calls:
        used = call.usage
        price = _price(call.provider, call.model, used.prompt, used.completion, used.cached)
        if price is None:
            return Cost(
                model=model,
                inputTokens=input_tokens,
                outputTokens=output_tokens,
                inputCost=None,
                outputCost=None,
                totalCost=None,
                reason=f"no price is known for the model {call.model!r}",
            )
        input_cost += price[0]
        output_cost += price[1]
    return Cost(
        model=model,
        inputTokens=input_tokens,
        outputTokens=output_tokens,
        inputCost=float(input_cost),
        outputCost=float(output_cost),
        totalCost=float(input_cost + output_cost),
    )


@lru_cache(maxsize=4096)
def _price(
    provider: str, model: str, prompt: int, completion: int, cached: int
) -> tuple[Decimal, Decimal] | None:
    if (listed_under := _listed_under(provider, model)) is _UNLISTED:
        return None
    # Imported here: its price data takes a third of a second to load, once.
    from genai_prices import Usage, calc_price  # noqa: PLC0415

    usage = Usage(input_tokens=prompt, output_tokens=completion, cache_read_tokens=cached)
    try:
        found = calc_price(usage, model, provider_id=listed_under)
    except (ValueError, ArithmeticError):
        return None  # counts that make no sense have no price
    return found.input_price, found.output_price


_UNLISTED = ""


@lru_cache(maxsize=256)
def _listed_under(provider: str, model: str) -> str | None:
    """The provider whose price list has the model, None for any; `_UNLISTED` where none has."""
    from genai_prices import Usage, calc_price  # noqa: PLC0415 - as above

    candidates: tuple[str | None, ...] = (provider, None)
    for candidate in candidates:  # a compatible server may serve any provider's model
        try:
            calc_price(Usage(), model, provider_id=candidate)
        except (LookupError, ValueError):
            continue
        return candidate
    return _UNLISTED
