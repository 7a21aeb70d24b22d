"""Codes of dead letters, and whose they are."""

import pytest

from clasper_worker.engine.queue.letter_reasons import blame_of, code_of


@pytest.mark.parametrize(
    ("reason", "code", "by"),
    [
        ("model_auth: The provider refused the key", "model_auth", "failure"),
        ("invalid_request: message: must not be empty", "invalid_request", "caller"),
        ("backend_not_found: The backend has no task 'x' for this", "backend_not_found", "caller"),
        ("backend_not_found: The backend has no such thing", "backend_not_found", "failure"),
        ("lost its worker (5 times)", "worker_lost", "failure"),
        ("no such task: app.tasks.add", "unknown_task", "caller"),
        ("not a message of Celery", "unreadable", "caller"),
        ("not a valid task message: KeyError", "unreadable", "caller"),
        ("its body cannot be decoded: ContentDisallowed", "unreadable", "caller"),
        ("not_one_of_ours: x", "other", "failure"),
        ("", "other", "failure"),
    ],
)
def test_each_reason_has_a_code_and_somebody_who_has_to_act(
    reason: str, code: str, by: str
) -> None:
    assert (code_of(reason), blame_of(reason)) == (code, by)
