"""What a request's body may be."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.shim.http import ApiProblem, _decoded
from tests.unit.shim.shims import caller, shim_app

START = b'{"user_id": "u1", "task_title": "T", "message": "Hi", '
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (START + b'"user_id": "u2"}', '"user_id" twice'),
        (START + b'"metadata": {"a": 1, "a": 1}}', '"a" twice'),
        (START + b'"metadata": {"a": NaN}}', "NaN"),
        (START + b'"metadata": {"a": -Infinity}}', "-Infinity"),
        (START + b'"metadata": {"a": 1e999}}', "finite"),
        (START + b'"metadata": {"a": ' + b"9" * 5000 + b"}}", "too many digits"),
        (START + b'"metadata": {"a": "\xff"}}', "not valid UTF-8"),
        ((START + b'"stream": false}').decode().encode("utf-16"), "not valid UTF-8"),
        (START + b'"metadata": ' + b'{"a":' * 50 + b"1" + b"}" * 51, "levels deep"),
        (START + b'"metadata": ' + b'{"a":' * 100_000, "deep"),
        (START + b'"metadata": {"a": [' + b"1," * 60_000 + b"1]}}", "values"),
        (b'"text"', "not a JSON object"),
        (b"", "not valid JSON"),
        (START, "line 1, column"),
    ],
)
async def test_what_is_not_one_plain_json_object_is_a_400_that_says_why(
    content: bytes, said: str
) -> None:
    async with caller(shim_app()) as client:
        answer = await client.post("/api/agents/send", content=content, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert said in answer.json()["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
async def test_another_type_or_coding_is_a_415(headers: dict[str, str]) -> None:
    async with caller(shim_app()) as client:
        for path in ("/api/agents/send", "/compact"):
            answer = await client.post(path, content=b"{}", headers=headers)
            assert answer.status_code == 415


async def test_fifty_thousand_unknown_fields_make_a_short_error() -> None:
    body = {"user_id": "u1", "message": "Hi", **{f"{'x' * 50}{i}": 1 for i in range(15_000)}}
    parts = {"user_id": "u1", "message": "Hi", "messages": [{f"x{i}": 1 for i in range(40_000)}]}
    long = {"user_id": "u1", "message": "Hi", "x" * 500_000: 1}
    async with caller(shim_app()) as client:
        for path in ("/api/agents/send", "/compact"):
            for sent in (body, parts, long):
                answer = await client.post(path, json=sent)
                assert answer.status_code == 400
                assert len(answer.content) < 20_000
        answer = await client.post("/api/agents/send", json=body)
    assert len(answer.json()["details"]["fields"]) == 20
    assert answer.json()["details"]["more"] > 14_000


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_an_object_or_a_problem(content: bytes) -> None:
    try:
        made = _decoded(content)
    except ApiProblem as exc:
        made = {"status": exc.status}
    assert isinstance(made, dict)
    assert made.get("status", 400) == 400


_VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists)


@given(st.dictionaries(st.text(), _VALUES))
def test_an_object_is_read_as_it_was_written(body: dict[str, Any]) -> None:
    assert _decoded(json.dumps(body).encode()) == body
