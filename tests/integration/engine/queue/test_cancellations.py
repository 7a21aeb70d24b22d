"""What is cancelled, noted in our own state for a broker that is not Redis."""

import pytest

from clasper_worker.config.settings import Settings
from clasper_worker.engine.queue.cancellations import Cancellations, CancelledRuns
from clasper_worker.errors import TurnCancelledError
from tests.integration.engine.queue.conftest import Site

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(site: Site) -> Settings:
    return Settings(
        _env_file=None,
        celery_broker_url="amqp://localhost",
        clasper_redis_url=site.settings.celery_broker_url,
    )


def opened(settings: Settings) -> Cancellations:
    found = Cancellations.open(settings)
    assert found is not None
    return found


async def test_a_run_goes_on_until_its_job_or_its_turn_is_cancelled(settings: Settings) -> None:
    notes, runs = opened(settings), CancelledRuns.open(settings)
    assert runs is not None
    by_job, by_turn = runs.of("job-1", "turn-1"), runs.of("job-2", "turn-2")
    for run in (by_job, by_turn):
        await run.confirm()
    assert notes.jobs_of("turn-2") == {"job-2"}
    notes.remember(["job-1", "turn-2"])
    for run in (by_job, by_turn):
        with pytest.raises(TurnCancelledError):
            await run.confirm()
    notes.recall(["job-1", "turn-2"])
    for run in (by_job, by_turn):
        await run.confirm()
    notes.close()
    await runs.close()


def test_a_note_is_kept_for_a_day(settings: Settings, site: Site) -> None:
    notes = opened(settings)
    notes.remember(["a"])
    notes.recall([])
    notes.close()
    assert 86_000 < site.redis.ttl("clasper:cancelled:a") <= 86_400


def test_where_the_broker_is_redis_its_scheduler_knows(site: Site) -> None:
    assert Cancellations.open(site.settings) is None
    assert CancelledRuns.open(site.settings) is None
