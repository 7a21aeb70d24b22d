"""What models and gateways answer, played by a real server through the real client."""

from typing import Any

import pytest
import stamina

from clasper_worker import errors
from clasper_worker.llm.completion import UNNAMED_TOOL, with_own_ids
from clasper_worker.llm.cost import turn_cost
from clasper_worker.llm.fallback import ModelChain
from clasper_worker.llm.messages import ChatMessage, ModelReply
from tests.unit.llm.model_server import Answer, Played, completion, model_of, refuses, says

HELLO = [ChatMessage("user", "Hello")]
OVERLOADED = {"code": 502, "message": "SECRET upstream"}


async def reply_to(*answers: Answer, **options: Any) -> ModelReply:
    async with model_of(*answers, **options) as (model, _):
        return await model.complete(HELLO)


async def error_of(answer: Answer) -> errors.ModelError:
    with pytest.raises(errors.ModelError) as caught:
        await reply_to(answer)
    assert "SECRET" not in f"{caught.value!r} {caught.value.details}"
    return caught.value


def inside(error: object, **more: Any) -> Played:
    return Played(body={"error": error, **more})


BROKEN = {
    "an error of the gateway": inside(OVERLOADED),
    "an error with null choices": inside(OVERLOADED, choices=None),
    "an error beside a choice": inside(OVERLOADED, choices=[{"message": {"content": "half"}}]),
    "an error that is text": inside("SECRET model too busy"),
    "an error in a list": Played(body=[{"error": {"code": 503, "status": "UNAVAILABLE"}}]),
    "an error of an old server": Played(body={"object": "error", "message": "x", "code": 500}),
    "an error in a choice": Played(
        body={"choices": [{"error": OVERLOADED, "finish_reason": "error", "message": {}}]}
    ),
    "a choice that ended in an error": completion({"content": "half"}, "error"),
    "null choices": Played(body={"choices": None}),
    "no choices": Played(body={"choices": []}),
    "choices that are left out": Played(body={"id": "x"}),
    "a choice without a message": Played(body={"choices": [{"message": None}]}),
    "a page": Played(body=b"<html><body>Bad gateway</body></html>"),
    "nothing": Played(body=b""),
    "blanks": Played(body=b" \n "),
    "half of it": Played(body=b'{"choices": [{"message": {"content": "He'),
    "null": Played(body=b"null"),
    "JSON too deep to read": Played(body=b"[" * 200_000),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_a_failure_inside_http_200_is_tried_again(answer: Played) -> None:
    with stamina.set_testing(testing=True, attempts=2, cap=True):
        reply = await reply_to(answer, says("Hi"), retries=1)
    assert reply.text == "Hi"


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_a_failure_inside_http_200_leads_to_the_fallback(answer: Played) -> None:
    async with model_of(answer) as (first, _), model_of(says("Hi")) as (second, _):
        assert (await ModelChain([first, second]).complete(HELLO)).text == "Hi"


@pytest.mark.parametrize(
    ("error", "expected", "status", "code"),
    [
        ({"code": 429, "message": "SECRET"}, errors.ModelUnavailableError, 429, "429"),
        ({"code": "429"}, errors.ModelUnavailableError, 429, "429"),
        ({"type": "overloaded_error"}, errors.ModelUnavailableError, 503, "overloaded_error"),
        ({"code": 401}, errors.ModelAuthError, 401, "401"),
        ({"status": "UNAUTHENTICATED"}, errors.ModelAuthError, 401, "UNAUTHENTICATED"),
        ({"code": "insufficient_quota"}, errors.ModelRejectedError, 429, "insufficient_quota"),
        ({"type": "invalid_request_error"}, errors.ModelRejectedError, 400,
         "invalid_request_error"),
        ({"code": "model_not_found"}, errors.ModelNotFoundError, 404, "model_not_found"),
        ({"code": "context_length_exceeded"}, errors.ContextLengthError, 400,
         "context_length_exceeded"),
        ({"message": "what is this"}, errors.ModelUnavailableError, 502, None),
    ],
)  # fmt: skip
async def test_an_error_inside_http_200_is_the_status_that_it_stands_for(
    error: dict[str, Any], expected: type[errors.ModelError], status: int, code: str | None
) -> None:
    found = await error_of(inside(error))
    assert type(found) is expected
    assert (found.details["status"], found.details["provider_code"]) == (status, code)
    assert str(status) in str(found)


async def test_an_error_inside_http_200_that_no_retry_fixes_is_not_tried_again() -> None:
    async with model_of(inside({"code": 400}), says("Hi"), retries=3) as (model, server):
        with pytest.raises(errors.ModelRejectedError):
            await model.complete(HELLO)
    assert len(server.asked) == 1


async def test_a_page_instead_of_an_answer_names_the_address_to_check() -> None:
    found = await error_of(Played(body=b"<html>"))
    assert isinstance(found, errors.ModelProtocolError)
    assert "OPENAI_BASE_URL" in str(found)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("<think>a</think>Hi", "Hi"),
        ("<think>\na\n</think>\n\nHi", "Hi"),
        ("\n<THINKING>a</THINKING>Hi", "Hi"),
        ("<reasoning>a</reasoning> Hi", "Hi"),
        ("<thought>a</thought>Hi", "Hi"),
        ("[THINK]a[/THINK]Hi", "Hi"),
        ("<think>a</think><think>b</think>Hi", "Hi"),
        ("<think>a<think>b</think>c</think>Hi", "Hi"),
        ("a, so b.\n</think>\nHi", "Hi"),
        ("<think>never closed", ""),
        ("<think></think>", ""),
        ("a</think>", ""),
        ("Hi <think>there</think>", "Hi <think>there</think>"),
        ("Close it with `</think>`.", "Close it with `</think>`."),
        ("1 < 2 [sic]", "1 < 2 [sic]"),
        (None, ""),
        ([{"type": "text", "text": "H"}, {"type": "text", "text": "i"}], "Hi"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]},
          {"type": "text", "text": "Hi"}], "Hi"),
        (["H", "i"], "Hi"),
        ({"type": "text", "text": "Hi"}, "Hi"),
        ([{"type": "image_url", "image_url": {}}], ""),
        ([{"type": "refusal", "refusal": "No."}], "No."),
        ("H\x00i\x07\x1b\x7f\n\tthere", "Hi\n\tthere"),
        ("Hé\x00", "Hé"),
    ],
)  # fmt: skip
async def test_what_people_read_is_the_text_alone(content: object, text: str) -> None:
    assert (await reply_to(says(content))).text == text


async def test_a_refusal_is_what_the_model_says() -> None:
    assert (await reply_to(says(None, refusal="I can't."))).text == "I can't."


def call(name: object = "f", arguments: object = "{}", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ({"a": "é"}, '{"a": "é"}'),
        ("", "{}"),
        (" ", "{}"),
        (None, "{}"),
        ({}, "{}"),
        ("{not json", "{not json"),
        ('{"a": "b\\u0000c"}', '{"a": "bc"}'),
        ('{"a": "b\\ud83d"}', '{"a": "b\N{REPLACEMENT CHARACTER}"}'),
        ('{"a": "\\u00e9"}', '{"a": "é"}'),
        ({"a": "b\x00c"}, '{"a": "bc"}'),
        ("[1]", "[1]"),
    ],
)
async def test_arguments_are_json_text_in_whatever_form_they_come(
    arguments: object, text: str
) -> None:
    reply = await reply_to(says(None, tool_calls=[call(arguments=arguments, id="1")]))
    assert [item.arguments for item in reply.tool_calls] == [text]


async def test_a_call_without_a_name_is_one_that_the_model_is_told_of() -> None:
    calls = [call(None, id="1"), call("", id="2"), {"id": "3", "name": "g", "arguments": {}}]
    reply = await reply_to(says(None, tool_calls=calls))
    assert [item.name for item in reply.tool_calls] == [UNNAMED_TOOL, UNNAMED_TOOL, "g"]


async def test_each_call_has_an_id_of_its_own() -> None:
    calls = [call(), call(id=None), call(id=""), call(id="a"), call(id="a"), call(id=5),
             call(id="c00200002"), call(id="old")]  # fmt: skip
    reply = with_own_ids(await reply_to(says(None, tool_calls=calls)), 2, {"old"})
    ids = [item.id for item in reply.tool_calls]
    assert len(set(ids)) == len(ids)
    assert "old" not in ids
    assert all(len(own) == 9 and own.isalnum() for own in ids if own not in {"a", "5"})
    assert with_own_ids(reply, 2, {"old"}) == reply


@pytest.mark.parametrize(
    ("usage", "is_complete", "counted"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 2}, True, (7, 2)),
        ({"input_tokens": 7, "output_tokens": 2}, True, (7, 2)),
        ({"prompt_tokens": 7, "total_tokens": 9}, True, (7, 2)),
        ({"completion_tokens": 2, "total_tokens": 9}, True, (7, 2)),
        ({"prompt_tokens": 7}, False, (7, 0)),
        ({"completion_tokens": 2}, False, (0, 2)),
        ({"prompt_tokens": None, "completion_tokens": None}, False, (0, 0)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, False, (0, 0)),
        ({}, False, (0, 0)),
        (None, False, (0, 0)),
        ("7", False, (0, 0)),
    ],
)
async def test_a_cost_is_null_with_the_reason_where_the_usage_is_not_whole(
    usage: object, is_complete: bool, counted: tuple[int, int]
) -> None:
    answer = completion({"content": "Hi"}, model="gpt-4o-mini", usage=usage)
    reply = await reply_to(answer)
    cost = turn_cost([reply])
    assert (reply.usage.prompt, reply.usage.completion) == counted
    assert (cost.totalCost is not None) is is_complete
    assert (cost.inputCost is not None) is is_complete
    assert is_complete or "usage" in (cost.reason or "")


async def test_a_call_ends_in_time_though_bytes_come_again_and_again() -> None:
    drip = Played(body=b"{", drip=0.02)
    with pytest.raises(errors.ModelUnavailableError, match="CLASPER_LLM_TIMEOUT_SEC"):
        await reply_to(drip, timeout_seconds=0.3)


async def test_headers_that_never_come_end_in_time_too() -> None:
    with pytest.raises(errors.ModelUnavailableError, match="CLASPER_LLM_TIMEOUT_SEC"):
        await reply_to(Played(body=b"", drip=5.0), timeout_seconds=0.2)


async def test_a_model_that_is_not_there_leads_to_the_fallback() -> None:
    for gone in (
        refuses(404, "The model `m` does not exist", code="model_not_found"),
        refuses(400, "m is not a valid model ID"),
        refuses(400, "x", code="invalid_model"),
        refuses(403, "Project has no access to model m", code="model_not_found"),
        Played(404, b"<html>"),
    ):
        async with model_of(gone) as (first, _), model_of(says("Hi")) as (second, _):
            assert (await ModelChain([first, second]).complete(HELLO)).text == "Hi"
        assert isinstance(await error_of(gone), errors.ModelNotFoundError)
        assert "LLM_MODEL_DEFAULT" in str(await error_of(gone))


TOO_LONG = [
    refuses(400, "This model's maximum context length is 8192 tokens. However, your messages"
            " resulted in 9000 tokens.", code="context_length_exceeded"),
    refuses(400, "prompt is too long: 9000 tokens > 8192 maximum", type="invalid_request_error"),
    refuses(400, "The input token count (9000) exceeds the maximum number of tokens allowed"
            " (8192).", status="INVALID_ARGUMENT"),
    refuses(400, "the request exceeds the available context size. try increasing it",
            type="exceed_context_size_error", n_prompt_tokens=9000, n_ctx=8192),
    refuses(422, "Prompt contains 9,000 tokens and 0 draft tokens, too large for model with 8,192"
            " maximum context length"),
    refuses(413, "Request too large", type="request_too_large"),
]  # fmt: skip


@pytest.mark.parametrize("answer", TOO_LONG)
async def test_a_conversation_that_is_too_long_names_the_variable(answer: Played) -> None:
    found = await error_of(answer)
    assert isinstance(found, errors.ContextLengthError)
    assert "CLASPER_CONTEXT_WINDOW_TOKENS" in str(found)
    if answer.status != 413:
        assert (found.details["limit"], found.details["requested"]) == (8192, 9000)
