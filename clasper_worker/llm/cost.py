"""What a turn's model calls used, in tokens, and cost, in USD."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict

from clasper_worker.llm.messages import ModelReply, TokenUsage
from clasper_worker.observability.events import ModelSpend

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

_MILLION = 1_000_000


class Usage(BaseModel):
    """Tokens, as the provider counted them, summed over the turn's model calls."""

    model_config = ConfigDict(frozen=True)

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0

    @classmethod
    def of(cls, replies: Iterable[ModelReply]) -> Self:
        """What these calls used in all."""
        used = sum((reply.usage for reply in replies), TokenUsage())
        return cls(
            prompt_tokens=used.prompt,
            completion_tokens=used.completion,
            total_tokens=used.prompt + used.completion,
        )


class Cost(BaseModel):
    """What the turn cost, in ``currency``.

    Where no price is known for the model, or the provider did not say how much was used, the three
    costs are None and ``reason`` says why; never zero, which would read as free.
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
    all costs are None and ``reason`` names it: a partial sum would understate. So it is where the
    provider of one did not count its tokens.
    """
    calls = list(replies)
    input_tokens = sum(call.usage.prompt for call in calls)
    output_tokens = sum(call.usage.completion for call in calls)
    model = calls[-1].model if calls else ""
    input_cost = output_cost = Decimal(0)
    for call in calls:
        price = _price_of(call)
        if price is None:
            if call.usage.is_complete:
                reason: str | None = f"no price is known for the model {call.model!r}"
            else:
                reason = f"the provider sent no usage for the model {call.model!r}"
            break
        input_cost += price[0]
        output_cost += price[1]
    else:
        reason = None
    if reason is not None:
        return Cost(
            model=model,
            inputTokens=input_tokens,
            outputTokens=output_tokens,
            inputCost=None,
            outputCost=None,
            totalCost=None,
            reason=reason,
        )
    return Cost(
        model=model,
        inputTokens=input_tokens,
        outputTokens=output_tokens,
        inputCost=float(input_cost),
        outputCost=float(output_cost),
        totalCost=float(input_cost + output_cost),
    )


def spend_by_model(replies: Iterable[ModelReply]) -> tuple[ModelSpend, ...]:
    """What model calls used, summed for each model; a call without a price leaves out its cost."""
    calls: dict[str, list[ModelReply]] = {}
    for reply in replies:
        calls.setdefault(reply.model, []).append(reply)
    spent = []
    for model, of_model in calls.items():
        prices = [_price_of(call) for call in of_model]
        known = [sum(price) for price in prices if price is not None]
        spent.append(
            ModelSpend(
                model,
                sum(call.usage.prompt for call in of_model),
                sum(call.usage.completion for call in of_model),
                float(sum(known)) if known else None,
                len(prices) - len(known),
            )
        )
    return tuple(spent)


def _price_of(call: ModelReply) -> tuple[Decimal, Decimal] | None:
    """What one call cost, of prompt and completion; None where price or usage is not known."""
    used = call.usage
    if not used.is_complete:
        return None
    return _price(call.provider, call.model, used.prompt, used.completion, used.cached)


def _price(
    provider: str, model: str, prompt: int, completion: int, cached: int
) -> tuple[Decimal, Decimal] | None:
    """What one call's prompt and completion cost; None where no price is known."""
    listed = _listed(provider, model)
    return None if listed is None else listed.price_of(prompt, completion, cached)


@dataclass(frozen=True, slots=True)
class _Rates:
    """Prices that do not depend on the request's size, in USD a million tokens."""

    prompt: Decimal
    cached: Decimal
    completion: Decimal

    def of(self, prompt: int, completion: int, cached: int) -> tuple[Decimal, Decimal]:
        fresh = self.prompt * (prompt - cached)
        return (fresh + self.cached * cached) / _MILLION, self.completion * completion / _MILLION


class _Listed:
    """A model in the price lists.

    ``genai-prices`` takes a fraction of a millisecond for a price, whatever the request. Most are
    so much a token, which is found out once; those that depend on the size are asked for each time.
    """

    def __init__(self, info: ModelInfo) -> None:
        self._info = info
        # By the price's identity, for it has no hash, and the list keeps it as long as us.
        self._rates: dict[int, _Rates | None] = {}

    def price_of(self, prompt: int, completion: int, cached: int) -> tuple[Decimal, Decimal] | None:
        listed = self._info.prices
        # A list of prices: by the date, or the hour.
        price = self._info.get_prices(datetime.now(UTC)) if isinstance(listed, list) else listed
        if id(price) not in self._rates:
            self._rates[id(price)] = _measure(price)
        rates = self._rates[id(price)]
        if rates is None or not 0 <= cached <= prompt or completion < 0:
            return _ask(price, prompt, completion, cached)
        return rates.of(prompt, completion, cached)


@lru_cache(maxsize=256)
def _listed(provider: str, model: str) -> _Listed | None:
    """Where the model's price is listed; None where it is not."""
    # Imported here: its price data takes a third of a second to load, once.
    from genai_prices import Usage, calc_price  # noqa: PLC0415

    candidates: tuple[str | None, ...] = (provider, None)
    for candidate in candidates:  # a compatible server may serve any provider's model
        try:
            return _Listed(calc_price(Usage(), model, provider_id=candidate).model)
        except (LookupError, ValueError):
            continue
    return None


def _measure(price: ModelPrice) -> _Rates | None:
    """The price's rates; None where they are not the same for every size."""
    from genai_prices.types import TieredPrices  # noqa: PLC0415 - as above

    if any(isinstance(value, TieredPrices) for value in vars(price).values()):
        return None
    prompt = _ask(price, _MILLION, 0, 0)
    cached = _ask(price, _MILLION, 0, _MILLION)
    completion = _ask(price, 0, _MILLION, 0)
    if prompt is None or cached is None or completion is None:
        return None
    return _Rates(prompt[0], cached[0], completion[1])


def _ask(
    price: ModelPrice, prompt: int, completion: int, cached: int
) -> tuple[Decimal, Decimal] | None:
    from genai_prices import Usage  # noqa: PLC0415 - as above

    usage = Usage(input_tokens=prompt, output_tokens=completion, cache_read_tokens=cached)
    try:
        found = price.calc_price(usage)
    except (ValueError, ArithmeticError):
        return None  # counts that make no sense have no price
    return found["input_price"], found["output_price"]
