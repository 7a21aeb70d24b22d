"""The examples of backends in Python, each as a server of its own, with a real worker behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from clasper_worker.webhooks.signature import sign
from tests.integration.connected import Connected
from tests.integration.turn.conftest import answers, free_port
from tests.waiting import until

pytestmark = [pytest.mark.integration]

EXAMPLES = Path(__file__).parents[3] / "examples"
SECRET = "a secret, shared"


@pytest.fixture(scope="module")
def fastapi_url(stack: Connected) -> Iterator[str]:
    port = str(free_port())
    command = ("-m", "uvicorn", "fastapi_backend:app", "--app-dir", str(EXAMPLES), "--port", port)
    yield from served(stack, port, "/openapi.json", *command)


@pytest.fixture(scope="module")
def django_url(stack: Connected) -> Iterator[str]:
    pytest.importorskip("django", reason="no Django here")
    port = str(free_port())
    command = (str(EXAMPLES / "django_backend.py"), "runserver", "--noreload", port)
    yield from served(stack, port, f"/questions/{uuid4()}", *command)


def served(stack: Connected, port: str, path: str, *command: str) -> Iterator[str]:
    """The address of a server that knows the broker, and nothing else of the worker's."""
    environment = {**os.environ, "WEBHOOK_SECRET": SECRET}
    environment["CELERY_BROKER_URL"] = stack.processes.environment["CELERY_BROKER_URL"]
    log = stack.processes.folder / f"example-{port}.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, *command],
            env=environment,
            stdout=output,
            stderr=output,
            cwd=stack.processes.folder,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: answers(url + path), command[0], log)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)


def read(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(url, timeout=30).json()
    return found


def ask(url: str, text: str, **fields: str) -> dict[str, Any]:
    question = {"user_id": "ex", "text": text, **fields}
    answer = httpx2.post(f"{url}/questions", json=question, timeout=30)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def posted(stack: Connected, word: str) -> str:
    (found,) = [text for text in stack.processes.posted("ex") if word in text]
    return found


def events(url: str, last: str | None = None, most: int | None = None) -> list[dict[str, Any]]:
    """A turn's events as a browser gets them: `id`, and the data's fields."""
    headers = {"Last-Event-ID": last} if last else {}
    found: list[dict[str, Any]] = []
    with httpx2.stream("GET", url, headers=headers, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        last = ""
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                last = value
            elif name == "data":
                found.append({"id": last, **json.loads(value)})
                if len(found) == most:
                    break
    return found


def test_fastapi_enqueues_streams_and_hears_of_the_end(stack: Connected, fastapi_url: str) -> None:
    word = uuid4().hex
    job = ask(fastapi_url, f"Say {word} again")["job_id"]
    url = f"{fastapi_url}/questions/{job}/events"
    first = events(url, most=3)
    rest = events(url, first[-1]["id"])
    every = first + rest
    assert every == events(url)  # from the start, once it has ended: the same
    assert len({event["id"] for event in every}) == len(every)
    text = "".join(event["data"] for event in every if event["type"] == "chunk")
    assert (every[-1]["type"], every[-1]["response"]) == ("done", text)
    assert text == posted(stack, word)
    until(lambda: "status" in read(f"{fastapi_url}/questions/{job}"), "the webhook comes")
    assert read(f"{fastapi_url}/questions/{job}")["response"] == text


def test_fastapi_refuses_what_could_only_fail(fastapi_url: str) -> None:
    body = {"user_id": "ex", "text": " "}
    answer = httpx2.post(f"{fastapi_url}/questions", json=body, timeout=30)
    assert answer.status_code == 400
    assert "message" in answer.json()["detail"]


def test_django_enqueues_by_name_and_hears_of_the_end(stack: Connected, django_url: str) -> None:
    word = uuid4().hex
    job = ask(django_url, f"Say {word} again")["job_id"]
    url = f"{django_url}/questions/{job}"
    until(lambda: read(url)["state"] == "SUCCESS", "the turn ends")
    assert read(url)["response"] == posted(stack, word)
    until(lambda: read(url)["reported"], "the webhook comes")


@pytest.mark.parametrize("backend", ["fastapi_url", "django_url"])
def test_the_same_key_is_the_same_turn(
    stack: Connected, backend: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(backend)
    word = uuid4().hex
    jobs = [ask(url, f"Say {word} again", key=word)["job_id"] for _ in range(2)]
    for job in jobs:
        until(lambda job=job: httpx2.get(f"{url}/questions/{job}").status_code == 200)
        done = lambda job=job: read(f"{url}/questions/{job}").get("response")  # noqa: E731
        assert until(done, "the turn ends") == posted(stack, word)


@pytest.mark.parametrize("backend", ["fastapi_url", "django_url"])
def test_a_webhook_of_another_s_is_refused(backend: str, request: pytest.FixtureRequest) -> None:
    url = f"{request.getfixturevalue(backend)}/hooks/clasper"
    body = json.dumps({"job_id": "j", "status": "ok"}).encode()
    now = int(time.time())
    headers = {
        sign(SECRET, body, now): 204,
        sign("another", body, now): 401,
        sign(SECRET, body, now - 3600): 401,
        sign(SECRET, body + b" ", now): 401,
        "t=,v1=": 401,
        "": 401,
    }
    for header, status in headers.items():
        answer = httpx2.post(url, content=body, headers={"X-Clasper-Signature": header})
        assert answer.status_code == status, header
    assert httpx2.post(url, content=body).status_code == 401
