"""``clasper status``: what it tells of a real Redis."""

import json
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from clasper_worker.cli import cli
from clasper_worker.config.names import QUEUES
from clasper_worker.config.settings import get_settings
from clasper_worker.engine.circuit.breaker import GateState, encode
from clasper_worker.engine.queue.policy import ScheduleRules
from clasper_worker.engine.queue.queue_status import read_broker_status
from clasper_worker.engine.queue.scheduler import Schedule
from tests.integration.engine.queue.conftest import Site

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]


@pytest.fixture
def run(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    monkeypatch.setenv("CELERY_BROKER_URL", site.settings.celery_broker_url)
    get_settings.cache_clear()
    yield lambda *arguments: CliRunner().invoke(cli, ["status", "--timeout", "0.2", *arguments])
    get_settings.cache_clear()


def test_an_empty_broker_without_workers_is_well(run: Callable[..., Result]) -> None:
    done = run("--json")
    told = json.loads(done.output)
    assert (done.exit_code, told["status"], told["workers"]) == (0, "ok", [])
    counts = {name: told[name] for name in ("waiting", "running", "capped", "suspect", "dead")}
    assert set(counts.values()) == {0}
    assert told["oldest_seconds"] is None


def test_work_that_waits_for_nobody_is_exit_code_1(site: Site, run: Callable[..., Result]) -> None:
    site.send("a")
    done = run("--json")
    told = json.loads(done.output)
    assert (done.exit_code, told["status"]) == (1, "no_workers")
    assert told["queues"]["clasper"] == {"waiting": 1, "running": 0, "oldest": None}
    assert "start one with `clasper worker`" in run().stderr


def test_each_message_is_counted_once_wherever_it_is(site: Site) -> None:
    """In the stock list, in a lane behind another, ready, or with a worker."""
    for number in range(3):
        site.send(f"same-{number}")  # one session: one runs, two wait behind it
    site.send("other", user_id="u2")
    taken = site.take(1)
    site.send("not-taken-in", user_id="u3")
    site.redis.hincrby(f"clasper:message:{taken[0].token.partition('#')[0]}", "at", -1000)
    status = read_broker_status(site.schedule)
    assert (status.waiting, status.running) == (4, 1)
    assert status.queues["clasper"].waiting == 4
    assert status.oldest is not None
    assert status.queues["clasper.periodic"].waiting == 0


def test_the_oldest_is_the_one_that_waits_longest(site: Site) -> None:
    for number in range(2):
        site.send(f"{number}")
    site.take(1)
    waiting = site.redis.hget("clasper:jobs", "1")
    assert isinstance(waiting, bytes)
    site.redis.hincrby(f"clasper:message:{waiting.decode()}", "at", -90_000)
    oldest = read_broker_status(site.schedule).oldest
    assert oldest is not None
    assert oldest >= 90


def test_capped_users_suspects_and_dead_letters_are_counted(site: Site) -> None:
    queues = [(name, [name]) for name in QUEUES]
    one_each = Schedule(site.redis, ScheduleRules(tenant_concurrency=1), queues)
    for role in ("r1", "r2"):
        site.send(role, agent_role=role)
    (first,) = one_each.exchange(free=10).deliveries
    assert read_broker_status(site.schedule).capped == 1
    site.schedule.doom(first.token, "model_auth: refused")
    site.take(0, settled=[first.token])
    assert read_broker_status(site.schedule).dead == 1
    site.redis.set("clasper:suspect", "a-tag")
    site.redis.rpush("clasper:suspects", "another")
    assert read_broker_status(site.schedule).suspect == 2


def test_a_host_that_is_left_alone_is_told(site: Site, run: Callable[..., Result]) -> None:
    seconds, _ = site.redis.time()  # type: ignore[misc, unused-ignore]
    site.redis.set("clasper:gate:down.example", encode(GateState(open_until=seconds + 60, trips=1)))
    site.redis.set("clasper:gate:busy.example#gpt", encode(GateState(paused_until=seconds + 60)))
    site.redis.set("clasper:gate:well.example", encode(GateState(recovered_at=seconds)))
    done = run("--json")
    told = json.loads(done.output)
    assert (done.exit_code, told["status"]) == (0, "degraded")
    assert [(one["host"], one["why"]) for one in told["open_circuits"]] == [
        ("busy.example#gpt", "rate_limited"),
        ("down.example", "down"),
    ]
    assert "open circuit: down.example (down," in run().output


def test_a_broker_that_does_not_answer_is_told(
    monkeypatch: pytest.MonkeyPatch, run: Callable[..., Result]
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://:hunter2@127.0.0.1:1/0")
    done = run("--json")
    told = json.loads(done.output)
    assert (done.exit_code, told["status"], told["error"]) == (
        1,
        "unavailable",
        "state_unavailable",
    )
    assert "hunter2" not in done.output
