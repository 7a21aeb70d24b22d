"""Turns that a newer message of their session interrupts, where a real worker has them."""

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

import pytest

from tests.integration.turn.json_handler import JsonHandler
from tests.integration.turn.test_cancel import SlowBackend
from tests.waiting import until

pytestmark = [
    pytest.mark.integration,
    # Celery's result backend, with redis-py 8.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]


class Model(ThreadingHTTPServer):
    """A model that does what the newest message says: answers, takes for ever, uses a tool."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.is_down = False
        self.stopped = threading.Event()

    @property
    def variables(self) -> dict[str, str]:
        return {"OPENAI_BASE_URL": f"http://127.0.0.1:{self.server_port}/v1"}


class _Handler(JsonHandler):
    server: Model

    def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
        body = self.body()
        said = str(body["messages"][-1]["content"])
        self.server.asked.append(said)
        if self.server.is_down:
            self.answer({"error": {"message": "down"}}, 503)
            return
        if "take for ever" in said:
            self.server.stopped.wait()
        message: dict[str, Any] = {"role": "assistant", "content": f"Reply to {said}"}
        if "write a document" in said:  # and once it is written, take for ever
            plan = {"title": "take for ever", "content": "1. Go"}
            function = {"name": "create_document", "arguments": json.dumps(plan)}
            call = {"id": "call-1", "type": "function", "function": function}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        if "use a tool" in said:
            function = {"name": "create_task", "arguments": json.dumps({"title": "Launch"})}
            call = {"id": "call-1", "type": "function", "function": function}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        reason = "tool_calls" if "tool_calls" in message else "stop"
        choice = {"index": 0, "finish_reason": reason, "message": message}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        about = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
        self.answer({**about, "choices": [choice], "usage": usage})


@contextmanager
def served(server: Any) -> Iterator[Any]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def model() -> Iterator[Model]:
    with served(Model()) as server:
        yield server


def send(processes: Any, user: str, queue: str, message: str, busy: str = "interrupt") -> Any:
    request = {
        "user_id": user,
        "message": message,
        "task_title": "T",
        "metadata": {"busy": busy},
    }
    return processes.app.send_task("clasper.send", kwargs=request, queue=queue)


def test_interrupting_twice_in_a_row_leaves_the_last_to_be_answered_alone(
    processes: Any, model: Model
) -> None:
    user, queue = secrets.token_hex(8), "twice"
    with processes.worker(queue, "-Q", queue, **model.variables):
        log = processes.logs[queue]
        first = send(processes, user, queue, "One: take for ever")
        until(lambda: len(model.asked) == 1, "the first is at the model", log)
        second = send(processes, user, queue, "Two: take for ever")
        until(lambda: len(model.asked) == 2, "the second is at the model", log)
        assert first.state == "REVOKED"
        third = send(processes, user, queue, "Three")
        result = third.get(timeout=60)
        assert [turn.state for turn in (first, second)] == ["REVOKED", "REVOKED"]
    assert "Three" in result["response"]
    assert processes.posted(user) == [result["response"]]


def test_work_that_was_finished_is_kept(processes: Any, model: Model) -> None:
    user, queue = secrets.token_hex(8), "finished"
    with processes.worker(queue, "-Q", queue, **model.variables):
        turns = [send(processes, user, queue, "One")]
        turns[0].get(timeout=60)
        turns.append(send(processes, user, queue, "Two"))
        replies = [turn.get(timeout=60)["response"] for turn in turns]
        assert [turn.state for turn in turns] == ["SUCCESS", "SUCCESS"]
    assert processes.posted(user) == replies


def test_a_turn_that_waits_for_an_outage_to_end_is_interrupted_there(
    processes: Any, model: Model
) -> None:
    user, queue = secrets.token_hex(8), "outage"
    model.is_down = True
    with processes.worker(queue, "-Q", queue, **model.variables):
        log = processes.logs[queue]
        waiting = send(processes, user, queue, "One")
        until(lambda: len(model.asked) >= 2, "it waits, and probes", log)
        following = send(processes, user, queue, "Two")
        until(lambda: waiting.state == "REVOKED", "it is interrupted", log)
        model.is_down = False
        result = following.get(timeout=60)
    assert "Two" in result["response"]
    assert processes.posted(user) == [result["response"]]


def test_a_turn_in_the_middle_of_a_tool_is_interrupted_there_and_posts_nothing_after_that(
    processes: Any, model: Model
) -> None:
    queue = "in-tool"
    with served(SlowBackend()) as backend:
        address = {"BACKEND_URL": f"http://127.0.0.1:{backend.server_port}"}
        with processes.worker(queue, "-Q", queue, **model.variables, **address):
            turn = send(processes, "u1", queue, "use a tool")
            assert backend.is_in_tool.wait(60)
            following = send(processes, "u1", queue, "Two")
            result = following.get(timeout=60)
            assert turn.state == "REVOKED"
            backend.stopped.set()  # its tool comes back now
            last = send(processes, "u1", queue, "Three").get(timeout=60)
    replies = [message["content"] for message in backend.messages]
    assert replies == [result["response"], last["response"]]
    assert not any("use a tool" in reply for reply in replies)


def test_a_turn_that_rolls_back_names_what_the_cancelled_one_had_stored(
    processes: Any, model: Model
) -> None:
    user, queue = secrets.token_hex(8), "rollback"
    with processes.worker(queue, "-Q", queue, **model.variables):
        log = processes.logs[queue]
        first = send(processes, user, queue, "write a document")
        until(lambda: len(model.asked) == 2, "it has written it, and is at the model again", log)
        second = send(processes, user, queue, "Two: take for ever", busy="rollback")
        until(lambda: len(model.asked) == 3, "the second is at the model", log)
        third = send(processes, user, queue, "Three", busy="rollback")
        until(lambda: second.state == "REVOKED", "it is cancelled as well", log)
        names_nothing = third.get(timeout=60)
        alone = send(processes, user, queue, "Four", busy="rollback").get(timeout=60)
        fifth = send(processes, user, queue, "write a document")
        until(lambda: len(model.asked) == 7, "the fifth has written one", log)
        names_it = send(processes, user, queue, "Six", busy="rollback").get(timeout=60)
        assert [turn.state for turn in (first, second, fifth)] == ["REVOKED"] * 3
    expected = {"turn_id": second.id, "messages": [], "documents": []}
    assert names_nothing["rolled_back"] == expected
    assert "rolled_back" not in alone
    assert names_it["rolled_back"]["turn_id"] == fifth.id
    assert names_it["rolled_back"]["messages"] == []
    assert len(names_it["rolled_back"]["documents"]) == 1
