"""Webhooks of dead letters, in a real Redis."""

import json
from typing import Any

import pytest
from click.testing import CliRunner

from clasper_worker.cli import dead_letters as cli
from clasper_worker.engine.queue.dead_letters import DeadLetters
from clasper_worker.engine.queue.message import read_task_message
from clasper_worker.webhooks.payload import Delivery

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]

WEBHOOK = {
    "url": "https://hooks.example.com/services/path-secret",
    "secret": "signing-secret",
    "headers": {"Authorization": "Bearer header-secret"},
}
SECRETS = ("path-secret", "signing-secret", "header-secret")


@pytest.fixture
def letters(site: Any) -> DeadLetters:
    return DeadLetters(site.schedule, site.client.app)


def bury(site: Any, job: str = "a") -> str:
    site.send(job, webhook=WEBHOOK)
    (burial,) = site.schedule.bury(site.take_one().token, "a reason")
    return str(burial.letter_id)


def everything(site: Any) -> dict[str, str]:
    """All that lies in Redis, by its keys; bodies of messages decoded."""
    found = {}
    for key in site.redis.keys("*"):
        kind = site.redis.type(key)
        value: Any = None
        if kind == b"hash":
            value = site.redis.hgetall(key)
            if b"raw" in value:
                message = read_task_message(value[b"raw"])
                value = [value, message and message.kwargs]
        elif kind == b"list":
            value = [read_task_message(raw) for raw in site.redis.lrange(key, 0, -1)]
            value = [message and message.kwargs for message in value]
        elif kind == b"string":
            value = site.redis.get(key)
        found[key.decode()] = repr(value)
    return found


def holding(site: Any, secret: str) -> list[str]:
    return [key for key, value in everything(site).items() if secret in value]


def test_a_letters_webhook_is_kept_apart_and_for_a_day_alone(site: Any) -> None:
    letter_id = bury(site)
    site.schedule.reap()
    for secret in SECRETS:
        assert holding(site, secret) == [f"clasper:apart:{letter_id}"]
    assert 0 < site.redis.ttl(f"clasper:apart:{letter_id}") <= 86_400
    assert site.redis.llen("clasper:together") == 0


def test_a_webhooks_own_dead_letter_holds_no_secret_either(site: Any) -> None:
    delivery = Delivery.model_validate(
        {
            "delivery_id": "d-1",
            "event": "agent.completed",
            "turn_id": "t-1",
            "webhook": WEBHOOK,
            "body": "{}",
        }
    )
    site.client.submit(
        "clasper.webhook", delivery.as_arguments(), job_id="d-1", queue="clasper.webhooks"
    )
    token = site.take_one().token
    assert site.schedule.doom(token, "a reason")
    site.schedule.exchange(settled=[token], free=0)
    site.schedule.reap()
    (apart,) = holding(site, "signing-secret")
    assert apart.startswith("clasper:apart:")


def test_within_its_life_a_replayed_letter_has_its_webhook_again(
    site: Any, letters: DeadLetters
) -> None:
    letter_id = bury(site)
    for step in (lambda: None, site.schedule.reap):
        step()
        assert letters.replay(letter_id) == "replayed"
        delivery = site.take_one()
        message = read_task_message(delivery.raw)
        assert message is not None
        assert message.kwargs is not None
        assert message.kwargs["webhook"] == WEBHOOK
        assert message.kwargs["message"] == "A secret word"
        (burial,) = site.schedule.bury(delivery.token, "again")
        letter_id = burial.letter_id


def test_after_that_a_replay_says_that_the_secret_is_gone_and_can_do_without(
    site: Any, letters: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter_id = bury(site)
    site.schedule.reap()
    site.redis.delete(f"clasper:apart:{letter_id}")
    monkeypatch.setenv("CELERY_BROKER_URL", site.settings.celery_broker_url)
    cli.get_settings.cache_clear()  # type: ignore[attr-defined]
    run = CliRunner().invoke
    refused = run(cli.command, ["replay", letter_id])
    assert refused.exit_code == 1
    assert "with its secret, is gone" in refused.stderr
    assert letters.get(letter_id) is not None
    assert run(cli.command, ["replay", letter_id, "--without-webhook"]).exit_code == 0
    message = read_task_message(site.take_one().raw)
    assert message is not None
    assert message.kwargs is not None
    assert "webhook" not in message.kwargs
    cli.get_settings.cache_clear()  # type: ignore[attr-defined]


def test_what_is_shown_of_a_letter_holds_its_receivers_host_alone(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter_id = bury(site)
    monkeypatch.setenv("CELERY_BROKER_URL", site.settings.celery_broker_url)
    cli.get_settings.cache_clear()  # type: ignore[attr-defined]
    for options in ([], ["--content"], ["--json", "--content"]):
        shown = CliRunner().invoke(cli.command, ["show", letter_id, *options])
        assert shown.exit_code == 0
        assert not any(secret in shown.output for secret in SECRETS)
    assert json.loads(shown.stdout)["request"]["webhook"] == {"kept_apart": "hooks.example.com"}
    cli.get_settings.cache_clear()  # type: ignore[attr-defined]


def test_a_dropped_letters_webhook_goes_with_it(site: Any, letters: DeadLetters) -> None:
    letter_id = bury(site)
    site.schedule.reap()
    assert letters.drop(letter_id)
    assert holding(site, "signing-secret") == []
    letter_id = bury(site)
    assert letters.drop(letter_id)  # before any worker has looked
    assert holding(site, "signing-secret") == []
    assert site.redis.llen("clasper:together") == 0
