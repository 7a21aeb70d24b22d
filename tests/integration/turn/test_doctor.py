"""What ``clasper doctor`` finds where real workers and the offline model run."""

from collections.abc import Callable
from typing import Any

import pytest

from clasper_worker import __version__
from clasper_worker.cli import doctor_probes as probes
from clasper_worker.cli.doctor_probes import Finding
from clasper_worker.config.settings import Settings
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(processes: Any, settings_of: Callable[..., Settings]) -> Settings:
    own = processes.environment
    return settings_of(
        celery_broker_url=own["CELERY_BROKER_URL"],
        openai_base_url=own["OPENAI_BASE_URL"],
        openai_api_key=own["OPENAI_API_KEY"],
    )


def test_workers_are_named_with_their_versions_and_queues_that_none_consumes_are_problems(
    processes: Any, settings: Settings
) -> None:
    found: list[Finding] = []

    def all_answered() -> bool:  # a busy worker may take longer than the doctor waits
        found[:] = probes.workers(settings)
        return any("clasper " in one.what for one in found) and len(found) > 1

    with processes.worker("seen", "-Q", "clasper,clasper.dispatch,clasper.webhooks") as node:
        until(all_answered, "the worker answers", processes.logs["seen"])
    ok = [one.what for one in found if one.level == "ok"]
    problems = [(one.what, one.fix) for one in found if one.level == "problem"]
    assert [what.split(",")[:2] for what in ok] == [[f"{node} answers", f" clasper {__version__}"]]
    assert "celery 5" in ok[0]
    assert problems == [
        ("no worker consumes the queue clasper.periodic", "start a worker with -Q clasper.periodic")
    ]


def test_the_model_is_asked_once_and_answers(processes: Any, settings: Settings) -> None:
    asked = f"{processes.model_url}/requests"
    before = processes.http.get(asked).json()["requests"]
    (found,) = probes.model_call(settings)
    assert (found.level, found.what) == ("ok", "gpt-4o-mini answers")
    assert len(processes.http.get(asked).json()["requests"]) == len(before) + 1


def test_a_model_that_nobody_serves_is_a_problem(settings: Settings) -> None:
    away = settings.model_copy(update={"openai_base_url": "http://127.0.0.1:1/v1"})
    (found,) = probes.model_call(away)
    assert (found.part, found.level) == ("model", "problem")
    assert found.fix
