"""A Beat that outlives outages of Redis and the loss of its lock."""

from collections.abc import Iterator

import fakeredis
import pytest
from celery import Celery
from celery.beat import Service

from clasper_worker.periodic.beat_scheduler import BeatScheduler

LOCK = "clasper:redbeat::lock"


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def beat(server: fakeredis.FakeServer) -> Iterator[BeatScheduler]:
    app = Celery("test", broker="memory://", set_as_current=False)
    app.conf.update(
        redbeat_redis_url="redis://localhost/0",
        redbeat_key_prefix="clasper:redbeat:",
        redbeat_lock_timeout=10,
        beat_schedule={"tick": {"task": "clasper.dispatch", "schedule": 3600.0}},
    )
    app.redbeat_redis = fakeredis.FakeRedis(server=server, decode_responses=True)
    yield BeatScheduler(app, max_interval=2)
    app.close()


def test_a_leader_that_has_lost_its_lock_stands_by_and_leads_again(
    beat: BeatScheduler, server: fakeredis.FakeServer
) -> None:
    others = fakeredis.FakeRedis(server=server)
    beat.tick()
    assert others.exists(LOCK)
    others.set(LOCK, "another")
    assert beat.tick() > 0
    assert not beat.lock
    assert others.get(LOCK) == b"another"
    others.delete(LOCK)
    beat.tick()
    assert beat.lock.owned()


def test_an_outage_is_waited_out(beat: BeatScheduler, server: fakeredis.FakeServer) -> None:
    beat.tick()
    lock = beat.lock
    server.connected = False
    assert [beat.tick(), beat.tick()] == [1.0, 1.0]
    server.connected = True
    beat.tick()
    assert beat.lock is lock
    server.connected = False
    beat.close()


def test_one_that_begins_in_an_outage_leads_when_it_is_over(
    beat: BeatScheduler, server: fakeredis.FakeServer
) -> None:
    server.connected = False
    assert beat.tick() == 1.0
    server.connected = True
    beat.tick()
    assert beat.lock.owned()


def test_one_that_is_stopped_while_it_waits_for_redis_at_its_start_ends(
    beat: BeatScheduler, server: fakeredis.FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Celery's handler of SIGINT and SIGTERM does: it saves the scheduler, then exits."""
    service = Service(beat.app, scheduler_cls=BeatScheduler)
    server.connected = False
    pauses = 0

    def interrupted(_: float) -> None:
        nonlocal pauses
        pauses += 1
        assert pauses == 1, "waits on"
        service.sync()

    monkeypatch.setattr("clasper_worker.periodic.beat_scheduler.time.sleep", interrupted)
    with pytest.raises(SystemExit):
        service.start()
    assert pauses == 1
