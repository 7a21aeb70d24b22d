from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from pkgutil import iter_modules

import pytest

from clasper_worker import tasks
from clasper_worker.celery import app
from clasper_worker.config.names import QUEUES
from clasper_worker.config.settings import Settings
from clasper_worker.observability.logs import configure_logging
from clasper_worker.periodic.registry import PERIODIC_JOBS, PeriodicJob


@pytest.mark.parametrize("job", PERIODIC_JOBS, ids=lambda job: job.name)
def test_every_periodic_job_has_its_task_its_limit_and_no_events(job: PeriodicJob) -> None:
    app.loader.import_default_modules()
    task = app.tasks[job.task]
    assert not task.send_events
    assert task.time_limit == job.time_limit


@pytest.mark.parametrize("job", PERIODIC_JOBS, ids=lambda job: job.name)
def test_a_run_that_went_well_is_not_logged(
    job: PeriodicJob, monkeypatch: pytest.MonkeyPatch, settings_of: Callable[..., Settings]
) -> None:
    output = io.StringIO()
    monkeypatch.setattr("sys.stderr", output)
    configure_logging(settings_of())
    trace = logging.getLogger("celery.app.trace")
    trace.info("Task %(name)s[%(id)s] succeeded", {"name": job.task, "id": "1"})
    assert output.getvalue() == ""


def test_every_module_of_tasks_is_loaded_with_them() -> None:
    app.loader.import_default_modules()
    names = {f"{tasks.__name__}.{module.name}" for module in iter_modules(tasks.__path__)}
    assert names <= sys.modules.keys()


def test_beat_has_an_entry_of_each_job_on_a_queue_of_ours() -> None:
    import beat_schedule

    entries = beat_schedule.app.conf.beat_schedule
    assert {name: entry["task"] for name, entry in entries.items()} == {
        job.name: job.task for job in PERIODIC_JOBS
    }
    for entry in entries.values():
        assert entry["options"]["queue"] in QUEUES
        assert entry["options"]["expires"] > entry["schedule"] > 0
