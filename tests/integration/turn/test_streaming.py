"""Turns followed as they run: real workers, a real shim or two, a model that speaks slowly."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest

from clasper_worker.client import ClasperClient
from clasper_worker.config.settings import Settings
from tests.integration import forked
from tests.integration.turn.conftest import free_port, start_shim
from tests.integration.turn.http_listener import (
    KEY,
    WORDS,
    HttpListener,
    a_request,
    assert_right,
    in_background,
    joined,
)
from tests.waiting import until

pytestmark = pytest.mark.integration


def test_the_text_comes_in_chunks_and_then_the_result(
    processes: Any, speaker: str, shims: list[str]
) -> None:
    listener, request = HttpListener(shims), a_request()
    listener.ask(request)
    assert_right(listener)
    assert "word39" in listener.last["response"]
    assert listener.types.count("chunk") > 10
    assert [kind for kind in listener.types if kind in {"start", "step", "done"}] == [
        "start",
        "step",
        "done",
    ]
    assert listener.headers["content-type"].startswith("text/event-stream")
    assert listener.headers["cache-control"] == "no-cache"
    assert listener.headers["x-accel-buffering"] == "no"
    job = httpx2.get(f"{shims[0]}{listener.url}".removesuffix("/events"), headers=KEY).json()
    assert listener.last == {**job["result"], "type": "done"}
    assert processes.posted(request["user_id"]) == [listener.last["response"]]


@pytest.mark.parametrize("events", [1, 2, 5])
def test_a_listener_that_is_cut_after_every_few_events_goes_on_at_the_other_shim(
    speaker: str, shims: list[str], events: int
) -> None:
    listener = HttpListener(shims)
    listener.ask(a_request(), cut_after=events)
    listener.to_the_end(cut_after=events)
    assert_right(listener)
    late = HttpListener(shims)
    late.url = listener.url
    late.go_on()
    known = [one for one in late.events if one[1]["type"] != "queued"]
    assert known == [one for one in listener.events if one[1]["type"] != "queued"]


def test_send_that_accepts_events_streams_too(speaker: str, shims: list[str]) -> None:
    headers = {**KEY, "Accept": "text/event-stream"}
    answer = httpx2.post(
        f"{shims[0]}/api/agents/send", json=a_request("one two"), headers=headers, timeout=60
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "event: chunk" in answer.text
    assert "event: done" in answer.text


def test_a_turn_that_celery_sent_is_followed_without_chunks_by_its_job_and_by_its_turn(
    processes: Any, speaker: str, shims: list[str]
) -> None:
    word = secrets.token_hex(4)
    request = a_request(f'Create a task called "Buy {word}"', idempotency_key=word)
    turn = processes.app.send_task("clasper.send", kwargs=request, queue="clasper")
    listener = HttpListener(shims)
    listener.url = f"/api/jobs/{turn.id}/events"
    listener.go_on()
    types = [kind for kind in listener.types if kind != "queued"]
    assert types == ["start", "step", "tool", "tool", "step", "done"]
    call, result = (event for _, event in listener.events if event["type"] == "tool")
    assert (call["phase"], call["tool"], call["step"]) == ("call", "create_task", 1)
    assert (result["phase"], result["ok"]) == ("result", True)
    by_turn = HttpListener(shims)
    by_turn.url = f"/api/jobs/{listener.last['turn_id']}/events"
    assert listener.last["turn_id"] != turn.id
    by_turn.go_on()
    assert by_turn.last == listener.last


def test_the_same_key_again_follows_the_same_turn(speaker: str, shims: list[str]) -> None:
    request = a_request(idempotency_key="k")
    first, again = HttpListener(shims), HttpListener(shims)
    first.ask(request, cut_after=4)
    again.ask(request)
    first.to_the_end()
    assert_right(first)
    assert_right(again)
    assert again.types.count("chunk") > 10
    assert first.last["turn_id"] == again.last["turn_id"]


def test_another_request_under_the_key_is_refused_and_sees_no_text(
    speaker: str, shims: list[str]
) -> None:
    request = a_request(idempotency_key="k")
    listener = HttpListener(shims)
    listener.ask(request, cut_after=4)
    other = {**request, "message": "Something else"}
    answer = httpx2.post(f"{shims[1]}/api/agents/stream", json=other, headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (409, "turn_conflict")


def test_a_turn_that_waits_for_its_session_says_so(speaker: str, shims: list[str]) -> None:
    request = a_request()
    first, second = HttpListener(shims), HttpListener(shims)
    first.ask(request, cut_after=4)
    second.ask(request)
    (queued,) = (event for _, event in second.events if event["type"] == "queued")
    assert (queued["reason"], queued["ahead"]) == ("session", 1)
    assert_right(second)


def test_a_cancelled_turn_ends_its_stream(speaker: str, shims: list[str]) -> None:
    listener = HttpListener(shims)
    listener.ask(a_request(), cut_after=6)
    assert listener.url is not None
    httpx2.delete(f"{shims[0]}{listener.url.removesuffix('/events')}", headers=KEY)
    listener.to_the_end()
    assert (listener.last["type"], listener.last["code"]) == ("error", "cancelled")


def test_a_turn_that_fails_ends_its_stream_with_the_error(speaker: str, shims: list[str]) -> None:
    listener = HttpListener(shims)
    listener.ask({**a_request(), "task_title": None, "task_id": "nobodys"})
    assert (listener.last["type"], listener.last["code"]) == ("error", "backend_not_found")


def test_a_listener_that_goes_away_cancels_nothing(
    processes: Any, speaker: str, shims: list[str]
) -> None:
    listener, request = HttpListener(shims), a_request()
    listener.ask(request, cut_after=5)
    until(lambda: processes.posted(request["user_id"]), "the reply")
    late = HttpListener(shims)
    late.url = listener.url
    late.go_on()
    assert_right(late)


def test_a_shim_that_restarts_in_mid_stream_costs_no_token(processes: Any, speaker: str) -> None:
    with ExitStack() as stack:
        port = free_port()
        base = start_shim(processes, stack, "first", port)
        listener = HttpListener([base])
        listener.ask(a_request(), cut_after=3)
        thread = in_background(listener.to_the_end)
        until(lambda: "chunk" in listener.types)
        stack.close()
        start_shim(processes, stack, "second", port)
        joined(thread)
    assert_right(listener)
    assert "retry" not in listener.types


def test_the_python_client_yields_typed_events(processes: Any, speaker: str) -> None:
    settings = Settings(
        _env_file=None, celery_broker_url=processes.environment["CELERY_BROKER_URL"]
    )
    client = ClasperClient.from_settings(settings)
    events = list(client.stream(a_request()))
    text = "".join(event.data for event in events if event.type == "chunk")
    assert events[-1].type == "done"
    assert text == events[-1].response

    async def again() -> list[Any]:
        stream = client.follow(events[-1].turn_id, last_event_id=events[3].id)
        return [event async for event in stream]

    assert asyncio.run(again()) == events[4:]
    client.close()


@pytest.mark.parametrize("http", [False, True])
def test_the_command_prints_the_text(
    processes: Any, speaker: str, shims: list[str], http: bool
) -> None:
    environment = {**processes.environment, "AGENT_DAEMON_URL": shims[0]}
    environment["AGENT_DAEMON_API_KEY"] = "key"
    command = ["clasper_worker", "send", "--stream", "--user", "u1", "--task-title", "T", WORDS]
    if http:
        command.insert(2, "--http")
    done = forked.run(processes.nursery, command, environment, processes.folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("word39") == 1
    assert "tokens" in done.stderr
