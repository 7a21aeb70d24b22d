"""``clasper heartbeat`` as far as it goes without a worker; the rest is an integration test."""

import pytest
from celery import Celery

from clasper_worker.cli.heartbeat import _report
from clasper_worker.errors import StateUnavailableError


@pytest.fixture
def app() -> Celery:
    return Celery("test", backend="cache+memory://", set_as_current=False)


def test_a_heartbeat_that_was_cancelled_by_a_message_gave_way(app: Celery) -> None:
    app.backend.mark_as_revoked("job", "terminated", store_result=True)
    report = _report(app.AsyncResult("job"), 1)
    assert (report["status"], report["reason"]) == ("skipped", "gave_way")


def test_a_heartbeat_that_nobody_runs_is_an_error_that_says_so(app: Celery) -> None:
    with pytest.raises(StateUnavailableError, match="worker"):
        _report(app.AsyncResult("never"), 0.01)


def test_a_report_comes_as_the_worker_gave_it(app: Celery) -> None:
    app.backend.mark_as_done("ended", {"status": "ok"})
    assert _report(app.AsyncResult("ended"), 1) == {"status": "ok"}
