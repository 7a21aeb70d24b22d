"""The fallback model."""

import pytest

from clasper_worker.errors import ModelRejectedError, ModelUnavailableError
from clasper_worker.llm.fallback import ModelChain
from clasper_worker.llm.messages import ChatMessage
from clasper_worker.testing import ScriptedModel, says

HELLO = [ChatMessage("user", "Hello")]


async def test_the_fallback_answers_when_the_model_is_unavailable_and_is_stayed_with() -> None:
    first = ScriptedModel([ModelUnavailableError("down")])
    second = ScriptedModel([says("one"), says("two")])
    chain = ModelChain([first, second])
    assert [(await chain.complete(HELLO)).text for _ in range(2)] == ["one", "two"]
    assert len(first.requests) == 1


async def test_a_refused_request_is_not_taken_to_the_fallback() -> None:
    second = ScriptedModel([says("one")])
    with pytest.raises(ModelRejectedError):
        await ModelChain([ScriptedModel([ModelRejectedError("no")]), second]).complete(HELLO)
    assert second.requests == []


async def test_when_all_are_unavailable_the_last_ones_error_is_raised() -> None:
    models = [ScriptedModel([ModelUnavailableError(name)]) for name in ("a", "b")]
    with pytest.raises(ModelUnavailableError, match="b"):
        await ModelChain(models).complete(HELLO)
