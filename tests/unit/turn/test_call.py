"""What a job asks for is read once, whatever it is."""

from typing import Any

import pytest

from clasper_worker.config.settings import get_settings
from clasper_worker.engine.queue.identity import turn_id_for
from clasper_worker.errors import InvalidRequestError
from clasper_worker.turn.call import TurnCall

HOOK = {"url": "https://example.com/hook"}
REQUEST = {"user_id": "u1", "agent_role": "writer", "message": "Hi", "webhook": HOOK}


def test_a_request_is_read_once_and_names_one_run_of_one_turn() -> None:
    call = TurnCall("job-1", {**REQUEST, "idempotency_key": "k"})
    assert call.request is call.request
    assert call.identity is call.identity
    assert (call.identity.turn_id, call.identity.job_id) == (
        turn_id_for("u1", "k", "job-1"),
        "job-1",
    )
    assert call.webhook is call.request.webhook


def test_a_request_that_cannot_be_run_says_why_each_time_and_keeps_its_webhook() -> None:
    call = TurnCall("job-1", {**REQUEST, "message": ""})
    for read in (lambda: call.request, lambda: call.identity):
        with pytest.raises(InvalidRequestError, match="message"):
            read()
    assert call.webhook is not None
    assert call.webhook.url == HOOK["url"]


@pytest.mark.parametrize("arguments", [None, [], "x", {}])
def test_what_are_no_arguments_asks_for_nothing(arguments: Any) -> None:
    call = TurnCall("job-1", arguments)
    assert isinstance(call.read, InvalidRequestError)
    assert call.webhook is None


@pytest.mark.parametrize(
    "webhook",
    [None, "x", 1, {}, {"url": "ftp://x"}, {**HOOK, "secret": "\ud800"}, {**HOOK, "x": 1}],
)
@pytest.mark.parametrize("message", ["Hi", ""])
def test_a_webhook_that_cannot_be_sent_is_none(webhook: Any, message: str) -> None:
    assert TurnCall("j", {**REQUEST, "message": message, "webhook": webhook}).webhook is None


def test_the_settings_limit_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLASPER_MAX_REQUEST_CHARS", "30")
    get_settings.cache_clear()
    try:
        with pytest.raises(InvalidRequestError, match="at most 30"):
            _ = TurnCall("j", {**REQUEST, "message": "x" * 31}).request
    finally:
        get_settings.cache_clear()
