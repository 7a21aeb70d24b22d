import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import fakeredis
import httpx2
import numpy as np
import openai
import pytest

from clasper_worker.devkit.offline_model.embeddings import embed, vector
from clasper_worker.devkit.offline_model.server import create_app
from clasper_worker.prompt.retrieval.embedders import LocalEmbedder, OpenAIEmbedder, fastembed_name
from clasper_worker.prompt.retrieval.embedding import (
    CachedDocuments,
    EmbeddingError,
    RedisVectorStore,
    unit_rows,
)


class CountingEmbedder:
    """Speaks the embedder's interface; a text's vector is its length and its vowels."""

    name = "local:counting"

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def documents(self, texts: Sequence[str]) -> Any:
        self.embedded += texts
        return unit_rows([[len(text), sum(text.count(v) for v in "aeiou")] for text in texts])

    async def query(self, text: str) -> Any:
        return self.documents([text])[0]


class MemoryStore:
    def __init__(self) -> None:
        self.vectors: dict[str, bytes] = {}

    def get(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        return [self.vectors.get(key) for key in keys]

    def put(self, vectors: Mapping[str, bytes]) -> None:
        self.vectors |= vectors


def test_a_text_is_embedded_once_however_often_it_occurs() -> None:
    embedder = CountingEmbedder()
    cached = CachedDocuments(embedder)
    first = cached.documents(["one", "two", "one"])
    second = cached.documents(["three", "one"])
    assert embedder.embedded == ["one", "two", "three"]
    assert first[0].tolist() == first[2].tolist() == second[1].tolist()


def test_what_another_process_embedded_is_not_embedded_again() -> None:
    store, embedder = MemoryStore(), CountingEmbedder()
    before = CachedDocuments(CountingEmbedder(), store).documents(["one", "two"])
    after = CachedDocuments(embedder, store).documents(["two", "new"])
    assert embedder.embedded == ["new"]
    assert after[0].tolist() == before[1].tolist()


def test_vectors_of_another_model_are_not_taken() -> None:
    store, other = MemoryStore(), CountingEmbedder()
    CachedDocuments(CountingEmbedder(), store).documents(["one"])
    other.name = "local:other"
    CachedDocuments(other, store).documents(["one"])
    assert other.embedded == ["one"]


def test_vectors_are_kept_in_redis_and_a_dead_redis_is_no_error() -> None:
    server = fakeredis.FakeServer()
    store = RedisVectorStore(fakeredis.FakeRedis(server=server), ttl_seconds=60)
    vectors = {str(number): bytes([number % 256] * 8) for number in range(450)}
    store.put(vectors)
    keys = [*vectors, "unknown"]
    assert list(store.get(keys)) == [*vectors.values(), None]
    assert 0 < fakeredis.FakeRedis(server=server).ttl("clasper:vector:1") <= 60
    server.connected = False
    store.put({"a": b"1234"})
    assert list(store.get(["1", "2"])) == [None, None]


def test_rows_have_length_one_and_a_zero_row_stays_zero() -> None:
    rows = unit_rows([[3.0, 4.0], [0.0, 0.0]])
    assert rows.dtype == np.float32
    assert rows.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Xenova/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("BAAI/bge-small-en-v1.5", "BAAI/bge-small-en-v1.5"),
    ],
)
def test_the_originals_model_name_means_the_same_model_here(given: str, name: str) -> None:
    assert fastembed_name(given) == name


class StubTextEmbedding:
    """Speaks fastembed's interface, as far as it is used."""

    def embed(self, documents: Sequence[str]) -> Any:
        return (np.array(vector(text)) * 2 for text in documents)

    def query_embed(self, query: str) -> Any:
        return self.embed([query])


async def test_a_local_model_is_loaded_once_and_its_vectors_brought_to_length_one() -> None:
    loaded: list[str] = []

    def load(name: str) -> StubTextEmbedding:
        loaded.append(name)
        return StubTextEmbedding()

    embedder = LocalEmbedder("all-MiniLM-L6-v2", load)
    rows = await asyncio.to_thread(embedder.documents, ["a red apple", "two pears"])
    query = await embedder.query("red apples")
    assert loaded == ["sentence-transformers/all-MiniLM-L6-v2"]
    assert np.linalg.norm(rows, axis=1).tolist() == [pytest.approx(1.0)] * 2
    assert (rows @ query)[0] > (rows @ query)[1]


def test_a_local_model_that_is_not_here_says_how_to_get_it(monkeypatch: Any) -> None:
    class NoFastembed:
        @staticmethod
        def TextEmbedding(model: str, **options: Any) -> Any:  # noqa: N802 - the library's name
            assert options == {"local_files_only": True}
            raise ValueError("Could not load model from any source")

    monkeypatch.setitem(__import__("sys").modules, "fastembed", NoFastembed)
    with pytest.raises(EmbeddingError, match="Fetch it once") as caught:
        LocalEmbedder("all-MiniLM-L6-v2").documents(["text"])
    assert caught.value.lasting
    monkeypatch.setitem(__import__("sys").modules, "fastembed", None)
    with pytest.raises(EmbeddingError, match=r"clasper-worker\[local\]"):
        LocalEmbedder("all-MiniLM-L6-v2").documents(["text"])


def test_a_local_model_that_fails_is_one_error_without_the_text() -> None:
    class Failing(StubTextEmbedding):
        def embed(self, documents: Sequence[str]) -> Any:
            raise RuntimeError(documents[0])

    with pytest.raises(EmbeddingError) as caught:
        LocalEmbedder("m", lambda _: Failing()).documents(["secret words"])
    assert "secret" not in str(caught.value)
    assert not caught.value.lasting


def blocking(handler: Any) -> openai.OpenAI:
    return openai.OpenAI(
        api_key="any",
        base_url="http://offline/v1",
        http_client=httpx2.Client(transport=httpx2.MockTransport(handler)),
        max_retries=0,
    )


def answer_embeddings(request: httpx2.Request) -> httpx2.Response:
    import json

    return httpx2.Response(200, json=embed(json.loads(request.content)))


@pytest.fixture
def asynchronous() -> openai.AsyncOpenAI:
    transport = httpx2.ASGITransport(create_app(), raise_app_exceptions=False)
    return openai.AsyncOpenAI(
        api_key="any",
        base_url="http://offline/v1",
        http_client=httpx2.AsyncClient(transport=transport),
    )


async def test_documents_and_messages_are_embedded_by_the_openai_client(
    asynchronous: openai.AsyncOpenAI,
) -> None:
    embedder = OpenAIEmbedder(asynchronous, lambda: blocking(answer_embeddings))
    texts = [f"document {number}" for number in range(130)] + ["overdue invoices", " "]
    rows = await asyncio.to_thread(embedder.documents, texts)
    query = await embedder.query("the overdue invoice")
    assert rows.shape[0] == len(texts)
    assert int((rows @ query).argmax()) == 130


async def test_a_message_that_was_just_embedded_is_not_asked_for_again() -> None:
    asked: list[httpx2.Request] = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return answer_embeddings(request)

    client = openai.AsyncOpenAI(
        api_key="any",
        base_url="http://offline/v1",
        http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(answer)),
    )
    embedder = OpenAIEmbedder(client, lambda: blocking(answer_embeddings))
    first = await embedder.query("one")
    again = await embedder.query("one")
    assert first.tolist() == again.tolist()
    assert len(asked) == 1
    for number in range(300):
        await embedder.query(f"message {number}")
    await embedder.query("one")
    assert len(asked) == 302


@pytest.mark.parametrize(("status", "lasting"), [(401, True), (404, True), (429, False)])
async def test_a_refusal_is_one_error_that_says_whether_to_try_again(
    status: int, lasting: bool, asynchronous: openai.AsyncOpenAI
) -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, json={"error": {"message": "secret words"}})

    embedder = OpenAIEmbedder(asynchronous, lambda: blocking(refuse))
    with pytest.raises(EmbeddingError) as caught:
        embedder.documents(["secret words"])
    assert caught.value.lasting is lasting
    assert f"HTTP {status}" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_an_answer_with_too_few_vectors_is_an_error(asynchronous: openai.AsyncOpenAI) -> None:
    def halve(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=embed({"input": ["one"]}))

    with pytest.raises(EmbeddingError, match="1 vectors for 2"):
        OpenAIEmbedder(asynchronous, lambda: blocking(halve)).documents(["one", "two"])
