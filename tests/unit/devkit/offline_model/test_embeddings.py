import base64
import math
import struct

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.devkit.offline_model.embeddings import DIMENSIONS, vector
from clasper_worker.devkit.offline_model.server import create_app


@pytest.fixture
def sdk() -> openai.AsyncOpenAI:
    """The real SDK, talking to the app."""
    transport = httpx2.ASGITransport(create_app(), raise_app_exceptions=False)
    return openai.AsyncOpenAI(
        api_key="any",
        base_url="http://offline/v1",
        http_client=httpx2.AsyncClient(transport=transport),
        max_retries=0,
    )


async def test_the_sdk_gets_a_vector_for_each_text_in_order(sdk: openai.AsyncOpenAI) -> None:
    texts = ["a red apple", "two green pears"]
    answer = await sdk.embeddings.create(model="m", input=texts, encoding_format="float")
    assert [item.index for item in answer.data] == [0, 1]
    assert [item.embedding for item in answer.data] == [vector(text) for text in texts]
    assert answer.model == "clasper-offline"
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


async def test_the_sdks_own_default_encoding_is_served_too(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.embeddings.create(model="m", input="a red apple")
    assert answer.data[0].embedding == pytest.approx(vector("a red apple"), abs=1e-6)


async def test_base64_is_float32(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.embeddings.create(model="m", input="apple", encoding_format="base64")
    raw = base64.b64decode(str(answer.data[0].embedding))
    assert struct.unpack(f"<{DIMENSIONS}f", raw) == pytest.approx(vector("apple"), abs=1e-6)


@pytest.mark.parametrize("texts", [[], [""], "", [1, 2], None])
async def test_what_the_api_refuses_is_refused(sdk: openai.AsyncOpenAI, texts: object) -> None:
    with pytest.raises(openai.BadRequestError):
        await sdk.embeddings.create(model="m", input=texts)  # type: ignore[arg-type]


@given(st.text())
def test_a_vector_has_length_one_or_none_at_all(text: str) -> None:
    length = math.sqrt(sum(value * value for value in vector(text)))
    assert length == pytest.approx(1.0) or length == 0.0


def test_texts_that_share_words_are_more_alike() -> None:
    def cosine(one: str, other: str) -> float:
        return sum(a * b for a, b in zip(vector(one), vector(other), strict=True))

    assert cosine("overdue invoices", "an invoice is overdue") > 0.4
    assert cosine("overdue invoices", "book a flight to Madrid") < 0.2
