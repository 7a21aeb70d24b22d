"""Clients that send and expect what the original's do (``CLASPER_COMPAT=original``)."""

import asyncio
import hashlib
import hmac
from typing import Any

import pytest
from celery import Celery

from clasper_worker.config.settings import Settings
from clasper_worker.webhooks.signature import sign_plainly
from tests.unit.shim.shims import caller, shim_app

SENT = {
    "user_id": "u1",
    "session_key": "user:u1:writer",
    "message": "Hello",
    "task_title": "T",
    "deliver": True,  # no field of ours
    "messages": [{"role": "user", "content": "Hi", "timestamp": 1}],
}
RESULT = {"status": "ok", "task_id": "t1", "trace_id": "x", "response": "Hi", "usage": {}}


def test_one_variable_sets_them_all_and_each_may_be_set_otherwise() -> None:
    plain = Settings(_env_file=None)
    assert not plain.clasper_lenient
    assert (plain.clasper_send_waits, plain.clasper_webhook_signature) == (0, "timed")
    compat = Settings(_env_file=None, clasper_compat="original", clasper_send_waits=5)
    assert compat.clasper_lenient
    assert compat.clasper_send_streams
    assert (compat.clasper_send_waits, compat.clasper_webhook_signature) == (5, "plain")


def test_the_variable_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLASPER_COMPAT", "original")
    assert Settings(_env_file=None).clasper_send_waits == 600


async def test_send_waits_and_answers_with_the_result_and_what_was_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = Celery(backend="cache+memory://", set_as_current=False).backend
    app = shim_app(clasper_compat="original")
    async with caller(app) as client:
        asked = asyncio.create_task(client.post("/api/agents/send", json=SENT))
        job_id = await _enqueued(monkeypatch)
        results.store_result(job_id, RESULT, "SUCCESS")
        answer = await asked
    assert answer.status_code == 200
    told = answer.json()
    assert {name: told[name] for name in RESULT} == RESULT
    assert [warning.partition(":")[0] for warning in told["warnings"]] == [
        "deliver",
        "messages.timestamp",
    ]


async def _enqueued(monkeypatch: pytest.MonkeyPatch) -> str:
    made: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def note(_: Any, job_id: str, *__: Any) -> None:
        made.set_result(job_id)

    monkeypatch.setattr("clasper_worker.shim.results.JobRegister.add", note)
    return await made


async def test_without_the_setting_unknown_fields_are_refused_and_nothing_is_waited_for() -> None:
    async with caller(shim_app()) as client:
        assert (await client.post("/api/agents/send", json=SENT)).status_code == 400
        known = {name: SENT[name] for name in ("user_id", "message", "task_title")}
        assert (await client.post("/api/agents/send", json=known)).status_code == 202
        streamed = {**known, "stream": True}
        assert (await client.post("/api/agents/send", json=streamed)).status_code == 202


async def test_the_header_of_a_key_is_the_bodys_field_and_both_must_agree() -> None:
    body = {"user_id": "u1", "message": "Hello", "task_title": "T"}
    header = {"Idempotency-Key": "k"}
    async with caller(shim_app()) as client:

        async def turn(body: dict[str, Any], headers: dict[str, str]) -> Any:
            return await client.post("/api/agents/send", json=body, headers=headers)

        by_header = (await turn(body, header)).json()["turn_id"]
        keyed = {**body, "idempotency_key": "k"}
        assert (await turn(keyed, {})).json()["turn_id"] == by_header
        assert (await turn(keyed, header)).json()["turn_id"] == by_header
        refused = await turn({**body, "idempotency_key": "other"}, header)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
        assert (await turn(body, {"Idempotency-Key": ""})).status_code == 400


def test_the_plain_signature_is_the_originals() -> None:
    expected = hmac.new(b"s", b"{}", hashlib.sha256).hexdigest()
    assert sign_plainly("s", b"{}") == expected
