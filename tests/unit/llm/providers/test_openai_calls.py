"""A streamed call over real HTTP: what a cut, an error or a refusal of it leads to."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import stamina

from clasper_worker import errors
from clasper_worker.llm.fallback import ModelChain
from clasper_worker.llm.messages import (
    ChatMessage,
    ModelEvent,
    ModelReply,
    ReplyEnded,
    Restarted,
    TextPart,
    TokenUsage,
    UsageCounted,
)
from clasper_worker.llm.providers import openai_calls
from tests.unit.llm.model_server import (
    COUNTED,
    DONE,
    STOP,
    Answer,
    Body,
    ModelServer,
    Played,
    delta,
    event,
    model_of,
    refuses,
    says,
    says_slowly,
    streams,
)

HELLO = [ChatMessage("user", "Hello")]
END = [UsageCounted(TokenUsage(7, 2)), ReplyEnded("stop")]


class Heard(list[ModelEvent]):
    """The events of a call, the text between two restarts joined."""

    @property
    def texts(self) -> list[str]:
        texts = [""]
        for part in self:
            if isinstance(part, Restarted):
                texts.append("")
            elif isinstance(part, TextPart):
                texts[-1] += part.text
        return texts


async def ask(*answers: Answer, **options: Any) -> tuple[ModelReply, Heard, ModelServer]:
    heard = Heard()
    with stamina.set_testing(testing=True, attempts=3):
        async with model_of(*answers, **options) as (model, server):
            reply = await model.complete(HELLO, listen=heard.append)
    return reply, heard, server


async def test_a_streamed_call_asks_for_usage_and_gives_events_of_our_own() -> None:
    reply, heard, server = await ask(says_slowly("Hel", "lo"))
    assert (reply.text, reply.usage) == ("Hello", TokenUsage(7, 2))
    assert heard.texts == ["Hello"]
    assert heard[-2:] == END
    (body,) = server.asked
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


async def test_a_call_that_nobody_listens_to_is_not_streamed() -> None:
    async with model_of(says("Hi")) as (model, server):
        assert (await model.complete(HELLO)).text == "Hi"
    assert "stream" not in server.asked[0]


async def test_a_connection_is_used_again_after_a_stream() -> None:
    async with model_of(says_slowly("Hi")) as (model, server):
        for _ in range(3):
            await model.complete(HELLO, listen=lambda _: None)
    assert (server.connections, len(server.asked)) == (1, 3)


HALF = [delta("Hel")]
LOST: dict[str, Played] = {
    "a cut connection": streams(*HALF, ends="cut"),
    "an end without a word": streams(*HALF),
    "an error in the stream": streams(*HALF, event({"error": {"code": 503, "message": "x"}})),
    "an event that is none": streams(*HALF, b"data: nonsense\n\n"),
    "nothing at all": streams(),
    "a status": refuses(503, "overloaded"),
    "a rate limit in the stream": streams(*HALF, event({"error": {"code": 429}})),
}


@pytest.mark.parametrize("answer", LOST.values(), ids=LOST)
async def test_what_breaks_off_is_asked_again_and_what_came_of_it_is_void(answer: Played) -> None:
    reply, heard, server = await ask(answer, says_slowly("Hello"), retries=1)
    assert (reply.text, len(server.asked)) == ("Hello", 2)
    assert heard.texts[-1] == "Hello"
    assert len(heard.texts) == 2


@pytest.mark.parametrize("answer", LOST.values(), ids=LOST)
async def test_it_is_the_fallbacks_to_answer_where_no_try_succeeds(answer: Played) -> None:
    heard = Heard()
    with stamina.set_testing(testing=True, attempts=2):
        async with (
            model_of(answer, retries=1) as (model, _),
            model_of(says_slowly("Hi")) as (
                other,
                _,
            ),
        ):
            reply = await ModelChain([model, other]).complete(HELLO, listen=heard.append)
    assert reply.text == heard.texts[-1] == "Hi"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (LOST["a cut connection"], errors.ModelUnavailableError),
        (LOST["an error in the stream"], errors.ModelUnavailableError),
        (LOST["an event that is none"], errors.ModelProtocolError),
        (streams(*HALF, event({"error": {"code": 401}})), errors.ModelAuthError),
        (streams(*HALF, event({"error": {"code": "context_length_exceeded"}})),
         errors.ContextLengthError),
        (Played(body=b"<html></html>"), errors.ModelProtocolError),
    ],
)  # fmt: skip
async def test_an_error_is_what_it_is_for_a_plain_call(
    answer: Played, error: type[errors.ModelError]
) -> None:
    with pytest.raises(error):
        await ask(answer)


async def test_an_error_that_no_retry_fixes_is_not_tried_again() -> None:
    async with model_of(streams(*HALF, event({"error": {"code": 401}})), retries=5) as (m, server):
        with pytest.raises(errors.ModelAuthError):
            await m.complete(HELLO, listen=lambda _: None)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "parts",
    [
        [delta("Hi"), DONE],
        [delta("Hi"), STOP],
        [delta("Hi"), STOP, COUNTED, DONE[:-2]],
    ],
)
@pytest.mark.parametrize("ends", ["whole", "cut"])
async def test_a_reply_that_is_whole_is_not_asked_for_again(parts: list[bytes], ends: Any) -> None:
    reply, heard, server = await ask(streams(*parts, ends=ends), retries=2)
    assert (reply.text, heard.texts, len(server.asked)) == ("Hi", ["Hi"], 1)


@pytest.mark.parametrize("last", [[STOP], [STOP, COUNTED, DONE]])
async def test_a_server_that_does_not_close_its_stream_is_not_waited_for(
    last: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_calls, "_AFTER_REPLY_SECONDS", 0.05)
    reply, _, server = await ask(streams(delta("Hi"), *last, ends="open"), timeout_seconds=60)
    assert reply.text == "Hi"
    await server.closed.wait()


async def test_silence_in_the_middle_is_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_calls, "SILENCE_SECONDS", 0.05)
    with pytest.raises(errors.ModelUnavailableError, match="connection was lost"):
        await ask(streams(*HALF, ends="open"), timeout_seconds=60)


async def test_silence_before_the_first_word_is_allowed_for_the_whole_time() -> None:
    with pytest.raises(errors.ModelUnavailableError, match="in time"):
        await ask(streams(b": wait\n\n", ends="open"), timeout_seconds=0.1)


async def test_words_that_never_end_end_in_time() -> None:
    with pytest.raises(errors.ModelUnavailableError):
        await ask(Played(body=delta("Hi"), drip=0.01), timeout_seconds=0.2)


async def test_a_call_that_is_stopped_closes_its_connection_at_once() -> None:
    came = asyncio.Event()
    async with model_of(streams(*HALF, ends="open")) as (model, server):
        asked = asyncio.create_task(model.complete(HELLO, listen=lambda _: came.set()))
        await came.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await server.closed.wait()


@pytest.mark.parametrize(
    "answer", [says("Hi"), Played(body=says("Hi").body, headers={"Content-Type": "text/plain"})]
)
async def test_a_provider_that_ignores_the_wish_is_heard_in_one_piece(answer: Played) -> None:
    reply, heard, _ = await ask(answer)
    assert reply.text == "Hi"
    assert heard == [TextPart("Hi"), *END]


def refusing(name: str, message: str, status: int = 400) -> Callable[[Body], Played]:
    """Refuses requests that have the parameter; answers others as they ask."""

    def answer(body: Body) -> Played:
        if name in body:
            return refuses(status, message)
        return says_slowly("Hi") if "stream" in body else says("Hi")

    return answer


@pytest.mark.parametrize(
    "message",
    ["Unrecognized request argument supplied: stream_options", "include_usage is not supported"],
)
async def test_a_provider_that_refuses_stream_options_is_asked_without(message: str) -> None:
    heard = Heard()
    async with model_of(refusing("stream_options", message)) as (model, server):
        for _ in range(2):
            assert (await model.complete(HELLO, listen=heard.append)).text == "Hi"
    assert heard.texts == ["", "Hi" + "Hi"]
    assert [("stream" in body, "stream_options" in body) for body in server.asked] == [
        (True, True),
        (True, False),
        (True, False),
    ]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "Streaming is not supported for this model"),
        (400, "Unsupported value: 'stream' does not support true with this model"),
        (422, "stream: extra fields not permitted"),
        (501, "streaming is not supported"),
    ],
)
async def test_a_provider_that_refuses_to_stream_is_asked_for_the_whole(
    status: int, message: str
) -> None:
    heard = Heard()
    async with model_of(refusing("stream", message, status)) as (model, server):
        for _ in range(2):
            assert (await model.complete(HELLO, listen=heard.append)).text == "Hi"
    assert heard == [Restarted(), TextPart("Hi"), *END, TextPart("Hi"), *END]
    assert ["stream" in body for body in server.asked] == [True, False, False]
    assert "stream_options" not in server.asked[1]


async def test_each_try_confirms_the_lease_before_it_is_made() -> None:
    confirmed: list[int] = []
    answers = [LOST["a cut connection"], says_slowly("Hi")]
    with stamina.set_testing(testing=True, attempts=3):
        async with model_of(*answers, retries=1) as (model, server):

            async def confirm() -> None:
                confirmed.append(len(server.asked))

            await model.complete(HELLO, confirm=confirm, listen=lambda _: None)
    assert confirmed == [0, 1]
