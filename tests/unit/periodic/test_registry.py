from __future__ import annotations

import pytest

from clasper_worker.celery import app
from clasper_worker.config.names import QUEUES, TICKS
from clasper_worker.periodic.registry import PERIODIC_JOBS, PeriodicJob


@pytest.mark.parametrize("job", PERIODIC_JOBS, ids=lambda job: job.name)
def test_every_periodic_job_has_its_task_its_limit_and_no_events(job: PeriodicJob) -> None:
    app.loader.import_default_modules()
    task = app.tasks[job.task]
    assert job.task in TICKS
    assert not task.send_events
    assert task.time_limit == job.time_limit


def test_every_tick_is_a_periodic_job() -> None:
    assert {job.task for job in PERIODIC_JOBS} == TICKS


def test_beat_has_an_entry_of_each_job_on_a_queue_of_ours() -> None:
    import beat_schedule

    entries = beat_schedule.app.conf.beat_schedule
    assert {name: entry["task"] for name, entry in entries.items()} == {
        job.name: job.task for job in PERIODIC_JOBS
    }
    for entry in entries.values():
        assert entry["options"]["queue"] in QUEUES
        assert entry["options"]["expires"] > entry["schedule"] > 0
