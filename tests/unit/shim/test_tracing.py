"""A request's trace and id go into its answer, and with the turn to the worker."""

from __future__ import annotations

from typing import Any

import pytest

from clasper_worker.observability.trace_context import TraceContext, current_trace
from tests.unit.shim.shims import caller, shim_app

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GIVEN = f"00-{TRACE}-00f067aa0ba902b7-01"
REQUEST = {"user_id": "u1", "message": "Hello", "task_title": "T"}


@pytest.mark.parametrize("headers", [{"traceparent": GIVEN}, {"X-Trace-Id": TRACE}])
async def test_the_callers_trace_and_id_are_answered(headers: dict[str, str]) -> None:
    async with caller(shim_app()) as client:
        answer = await client.get("/health", headers={**headers, "X-Request-ID": "of-mine"})
    assert answer.headers["x-trace-id"] == TRACE
    assert answer.headers["x-request-id"] == "of-mine"
    assert current_trace() is None


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "é"])
async def test_a_request_without_usable_ids_gets_its_own(given: str) -> None:
    headers = {b"traceparent": given.encode(), b"X-Request-ID": given.encode()}
    async with caller(shim_app()) as client:
        answers = [await client.get("/nothing", headers=headers) for _ in range(2)]
    ids = {answer.headers[name] for answer in answers for name in ("x-trace-id", "x-request-id")}
    assert len(ids) == 4
    assert all(len(one) == 32 for one in ids)


async def test_a_turn_is_enqueued_with_the_trace_of_its_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, sent = shim_app(), []

    def send_task(*_: Any, headers: dict[str, Any], **__: Any) -> None:
        sent.append(headers["traceparent"])

    monkeypatch.setattr("clasper_worker.client.CheckedCelery.send_task", send_task)
    async with caller(app) as client:
        for headers in ({"traceparent": GIVEN}, {}):
            answer = await client.post("/api/agents/send", json=REQUEST, headers=headers)
            assert answer.status_code == 202
            trace = TraceContext.read(sent[-1])
            assert trace is not None
            assert trace.trace_id == answer.headers["x-trace-id"]
    assert sent[0] != GIVEN  # the shim calls, not its caller
    assert sent[0].startswith(f"00-{TRACE}-")
