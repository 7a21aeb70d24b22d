"""One structured model call: asked, checked, asked once more, or refused."""

import json
from typing import Any

import pytest

from clasper_worker.errors import EmptyReplyError, InvalidOutputError, InvalidRequestError
from clasper_worker.testing import ScriptedModel, says
from clasper_worker.turn.llm_task import LlmTaskResult, parse_llm_task, run_llm_task
from clasper_worker.turn.request import RequestLimits

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


async def run(model: ScriptedModel, **fields: Any) -> LlmTaskResult:
    request, check = parse_llm_task({"prompt": "Count.", **fields}, RequestLimits())
    return await run_llm_task(request, check, model)


async def test_output_that_fits_its_schema_is_given_as_json_and_marked_as_checked() -> None:
    model = ScriptedModel([says('{"n": 3}', prompt=20, completion=4)])
    result = await run(model, schema=SCHEMA, input={"words": ["</data>"]}, max_tokens=50)
    assert (result.output, result.validated) == ({"n": 3}, True)
    assert result.usage.total_tokens == 24
    assert result.cost.totalCost is not None
    (asked,) = model.requests
    options = asked.options
    assert (options.schema, options.max_tokens, options.temperature) == (SCHEMA, 50, 0.3)
    system, said = (message.content or "" for message in asked.messages)
    assert json.dumps(SCHEMA) in system
    assert said.endswith("Count.")
    assert said.count("</data>") == 1  # the fence's own


async def test_a_code_block_around_the_output_is_taken_off() -> None:
    model = ScriptedModel([says('```json\n{"n": 3}\n```')])
    assert (await run(model, schema=SCHEMA)).output == {"n": 3}


@pytest.mark.parametrize("bad", ['{"n": "three"}', "{}", "Sure! It is 3.", '{"n": 3', "[" * 5000])
async def test_output_that_does_not_fit_is_asked_for_once_more_with_what_is_wrong(bad: str) -> None:
    model = ScriptedModel([says(bad), says('{"n": 3}')])
    result = await run(model, schema=SCHEMA)
    assert (result.output, result.usage.prompt_tokens) == ({"n": 3}, 20)
    *_, reply, repair = model.requests[1].messages
    assert (reply.role, reply.content) == ("assistant", bad)
    assert "$" in (repair.content or "")


async def test_a_second_misfit_is_an_error_that_quotes_nothing() -> None:
    model = ScriptedModel([says('{"n": "secret"}'), says('{"secret": 1}')])
    with pytest.raises(InvalidOutputError) as caught:
        await run(model, schema=SCHEMA)
    assert caught.value.details["problems"] == 1
    assert "secret" not in f"{caught.value!r} {caught.value} {caught.value.details}"
    assert len(model.requests) == 2


async def test_without_a_schema_the_output_is_json_where_it_is_some_and_text_else() -> None:
    for text, output in (("Three.", "Three."), ('{"n": 3}', {"n": 3}), ("3", "3")):
        model = ScriptedModel([says(text)])
        result = await run(model)
        assert (result.output, result.validated) == (output, False)
        assert model.requests[0].options.schema is None


async def test_no_output_is_an_error() -> None:
    with pytest.raises(EmptyReplyError):
        await run(ScriptedModel([says(" ")]), schema=SCHEMA)


async def test_output_that_takes_too_long_to_check_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clasper_worker.llm.json_check.MAX_STEPS", 1)
    model = ScriptedModel([says('{"n": 3}'), says('{"n": 3}')])
    with pytest.raises(InvalidOutputError):
        await run(model, schema=SCHEMA)


async def test_a_reference_that_leads_nowhere_is_the_callers_error() -> None:
    with pytest.raises(InvalidRequestError, match="schema"):
        await run(ScriptedModel([says("{}")]), schema={"$ref": "#/$defs/none"})


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "p", "temperature": 2.1}, "temperature"),
        ({"prompt": "p", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "p", "schema": {"type": "nothing"}}, "schema"),
        ({"prompt": "p", "schema": {"pattern": "(?=x)"}}, "schema"),
        ({"prompt": "p", "schema": "{}"}, "schema"),
        ({"prompt": "p", "output_schema": {}}, "output_schema"),
        ({"prompt": "p" * 2_000_000}, "(request)"),
    ],
)
def test_a_bad_request_names_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_llm_task(fields, RequestLimits())
    assert [item["field"] for item in caught.value.details["fields"]] == [field]


async def test_people_s_text_is_in_no_repr() -> None:
    request, _ = parse_llm_task({"prompt": "secret", "input": "secret"}, RequestLimits())
    result = await run(ScriptedModel([says("secret")]))
    assert "secret" not in f"{request!r} {result!r}"
