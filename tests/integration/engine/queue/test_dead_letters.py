"""Dead letters: how turns that failed for good get there, and what can be done with them."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from clasper_worker.cli import cli
from clasper_worker.config.settings import Settings, get_settings
from clasper_worker.engine.queue.dead_letters import OUTCOMES, DeadLetters, Doom
from clasper_worker.engine.queue.scheduler import open_schedule
from clasper_worker.errors import ClasperError, InvalidRequestError, ModelAuthError
from tests.integration.engine.queue.conftest import Site

pytestmark = [
    pytest.mark.integration,
    # Celery's result backend, with redis-py 8.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]


@pytest.fixture
def letters(site: Site) -> DeadLetters:
    return DeadLetters(site.schedule, site.client.app)


def fail(site: Site, job: str, reason: str = "model_auth: refused") -> str:
    """A turn that fails for good; returns its letter's id."""
    site.send(job)
    delivery = site.take_one()
    site.schedule.doom(delivery.token, reason)
    site.end(job, "FAILURE")
    site.take(0, settled=[delivery.token])
    return delivery.token.rpartition("#")[0]


# How they get there


async def failing(site: Site, lease: str | None, error: Exception) -> None:
    doom = Doom(open_schedule(site.settings))
    try:
        async with doom.of_failures(lease):
            raise error
    except type(error):
        pass
    finally:
        await doom.close()


@pytest.mark.parametrize("error", [ModelAuthError("refused"), InvalidRequestError("no user_id")])
async def test_a_turn_that_fails_for_good_is_a_dead_letter_once_it_is_settled(
    site: Site, letters: DeadLetters, error: ClasperError
) -> None:
    site.send("a")
    delivery = site.take_one()
    await failing(site, delivery.token, error)
    assert letters.ids() == ()
    found = site.schedule.exchange(settled=[delivery.token], free=0)
    (letter,) = letters.newest(10)
    assert (letter.job_id, letter.user_id, letter.queue) == ("a", "u1", "clasper")
    assert (letter.reason, letter.attempts) == (f"{error.code}: {error}", 1)
    assert letter.raw == delivery.raw
    assert found.buried == ()  # its failure is stored: nobody is to store another


@pytest.mark.parametrize("error", [*(kind("x") for kind in OUTCOMES), ValueError("x")])
async def test_ends_that_are_no_loss_make_no_dead_letter(
    site: Site, letters: DeadLetters, error: Exception
) -> None:
    site.send("a")
    delivery = site.take_one()
    await failing(site, delivery.token, error)
    site.take(0, settled=[delivery.token])
    assert letters.ids() == ()


async def test_a_lease_that_another_worker_has_dooms_nothing(
    site: Site, letters: DeadLetters
) -> None:
    site.send("a")
    first = site.take_one()
    site.take(0, released=[first.token])
    second = site.take_one()
    await failing(site, first.token, ModelAuthError("refused"))
    site.take(0, settled=[second.token])
    assert letters.ids() == ()


def test_a_delivery_that_was_not_settled_after_all_may_still_do_well(
    site: Site, letters: DeadLetters
) -> None:
    site.send("a")
    first = site.take_one()
    site.schedule.doom(first.token, "model_auth: refused")
    site.take(0, released=[first.token])
    site.take(0, settled=[site.take_one().token])
    assert letters.ids() == ()


async def test_without_redis_to_ask_the_turn_fails_with_its_own_error(
    settings_of: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    doom = Doom(open_schedule(settings_of(celery_broker_url="redis://127.0.0.1:1/0")))
    with pytest.raises(ModelAuthError):
        async with doom.of_failures("tag#1"):
            raise ModelAuthError("refused")
    await doom.close()


def test_all_that_were_collected_into_a_failed_turn_are_kept(
    site: Site, letters: DeadLetters
) -> None:
    for job in ("a", "b"):
        site.send(job, metadata={"busy": "collect"})
    delivery = site.take_one()
    assert len(delivery.collected) == 1
    site.schedule.doom(delivery.token, "model_auth: refused")
    site.take(0, settled=[delivery.token])
    assert {letter.job_id for letter in letters.newest(10)} == {"a", "b"}


# What can be done with them


def test_a_replayed_letter_is_delivered_as_it_was_sent_and_is_no_letter_any_more(
    site: Site, letters: DeadLetters
) -> None:
    letter_id = fail(site, "a")
    letter = letters.get(letter_id)
    assert letter is not None
    assert letters.replay(letter_id) == "replayed"
    assert site.state("a") == "RECEIVED"
    assert letters.ids() == ()
    delivery = site.take_one()
    assert delivery.raw == letter.raw
    assert not delivery.is_redelivered


def test_a_replayed_letter_does_not_expire_though_its_message_was_to(
    site: Site, letters: DeadLetters
) -> None:
    expires = "2020-01-01T00:00:00+00:00"
    site.client.app.send_task(
        "clasper.send", kwargs={"user_id": "u1"}, queue="clasper", task_id="a", expires=expires
    )
    sent = site.take_one()
    site.schedule.bury(sent.token, "lost its worker (3 times)")
    (letter,) = letters.newest(1)
    assert letters.replay(letter.letter_id) == "replayed"
    then, now = json.loads(sent.raw), json.loads(site.take_one().raw)
    assert then["headers"].pop("expires").startswith("2020")
    assert now["headers"].pop("expires") is None
    assert now == then


def test_a_replayed_turn_that_fails_again_is_a_letter_again(
    site: Site, letters: DeadLetters
) -> None:
    letter_id = fail(site, "a")
    letters.replay(letter_id)
    delivery = site.take_one()
    site.schedule.doom(delivery.token, "model_auth: still refused")
    site.take(0, settled=[delivery.token])
    (letter,) = letters.newest(10)
    assert (letter.letter_id, letter.reason) == (letter_id, "model_auth: still refused")


@pytest.mark.parametrize("name", ["a", "turn"])
def test_what_was_cancelled_runs_if_it_is_replayed(
    site: Site, letters: DeadLetters, name: str
) -> None:
    letter_id = fail(site, "a")
    message = letters.newest(1)[0].message
    assert message is not None
    site.schedule.withdraw("a" if name == "a" else message.turn_id)
    letters.replay(letter_id)
    assert site.take_one().verdict == ""


def test_the_newest_letters_come_first_and_no_more_than_asked_for(
    site: Site, letters: DeadLetters
) -> None:
    for number in range(5):
        fail(site, f"{number}")
        site.redis.zincrby("clasper:dead", number, letters.newest(1)[0].letter_id)
    assert len(letters.newest(3)) == 3
    assert len(letters.ids()) == 5


# The commands


@pytest.fixture
def run(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    monkeypatch.setenv("CELERY_BROKER_URL", site.settings.celery_broker_url)
    get_settings.cache_clear()
    yield lambda *arguments: CliRunner().invoke(cli, ["dead-letters", *arguments])
    get_settings.cache_clear()


def test_list_shows_who_where_and_why(site: Site, run: Callable[..., Result]) -> None:
    assert "no dead letters" in run("list").output
    letter_id = fail(site, "job-1")
    shown = run("list").output
    for part in (letter_id, "job-1", "u1", "clasper", "model_auth: refused", "attempts 1"):
        assert part in shown
    (entry,) = json.loads(run("list", "--json").output)
    assert (entry["id"], entry["task"], entry["attempts"]) == (letter_id, "clasper.send", 1)


def test_show_keeps_peoples_text_back_unless_it_is_asked_for(
    site: Site, run: Callable[..., Result]
) -> None:
    letter_id = fail(site, "a")
    for options in ((), ("--json",)):
        assert "A secret word" not in run("show", letter_id, *options).output
    assert "A secret word" in run("show", letter_id, "--content").output
    shown = json.loads(run("show", letter_id, "--content", "--json").output)
    assert shown["request"]["message"] == "A secret word"


def test_replay_and_drop_take_ids_or_all(site: Site, run: Callable[..., Result]) -> None:
    first, second, third = fail(site, "a"), fail(site, "b"), fail(site, "c")
    assert run("drop", first).exit_code == 0
    assert json.loads(run("replay", second, "--json").output) == {second: "replayed"}
    assert run("replay", "--all").exit_code == 0
    assert third in run("show", third).stderr
    assert {json.loads(one.raw)["headers"]["id"] for one in site.take(1)} == {"b"}
    assert json.loads(run("list", "--json").output) == []


def test_a_message_that_is_none_is_kept_and_cannot_be_replayed(
    site: Site, run: Callable[..., Result]
) -> None:
    site.redis.lpush("clasper", b"{\xff not a message")
    (burial,) = site.schedule.exchange(free=1).buried
    shown = run("show", burial.letter_id, "--content")
    assert "not a message" in shown.output
    replayed = run("replay", burial.letter_id)
    assert replayed.exit_code == 1
    assert "not a message of Celery" in replayed.stderr
    assert run("drop", "--all").exit_code == 0
    assert json.loads(run("list", "--json").output) == []


@pytest.mark.parametrize("command", ["show", "replay", "drop"])
def test_an_unknown_id_is_an_error(run: Callable[..., Result], command: str, site: Site) -> None:
    result = run(command, "nothing-of-that-id")
    assert result.exit_code == 1
    assert "nothing-of-that-id" in result.stderr


@pytest.mark.parametrize("arguments", [["replay"], ["drop"], ["drop", "x", "--all"]])
def test_ids_or_all_must_be_given(
    run: Callable[..., Result], arguments: list[str], site: Site
) -> None:
    assert run(*arguments).exit_code == 2


def test_another_broker_is_said_to_have_none(monkeypatch: Any) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://localhost")
    get_settings.cache_clear()
    result = CliRunner().invoke(cli, ["dead-letters", "list"])
    get_settings.cache_clear()
    assert "CELERY_BROKER_URL" in str(result.exception)


def test_callers_own_mistakes_stand_apart_and_each_letter_has_a_code(
    site: Site, run: Callable[..., Result]
) -> None:
    mistake = fail(site, "a", "invalid_request: message: must not be empty")
    failure = fail(site, "b", "model_auth: refused")
    shown = run("list").output
    assert shown.index(failure) < shown.index("Callers' own mistakes:") < shown.index(mistake)
    found = {entry["id"]: entry for entry in json.loads(run("list", "--json").output)}
    assert (found[mistake]["code"], found[mistake]["by"]) == ("invalid_request", "caller")
    assert (found[failure]["code"], found[failure]["by"]) == ("model_auth", "failure")
    assert json.loads(run("show", failure, "--json").output)["code"] == "model_auth"


def test_letters_are_listed_replayed_and_dropped_by_code_user_and_who_has_to_act(
    site: Site, run: Callable[..., Result]
) -> None:
    mistake = fail(site, "a", "invalid_request: message: must not be empty")
    failure = fail(site, "b", "model_auth: refused")
    lost = fail(site, "c", "lost its worker (5 times)")

    def listed(*options: str) -> set[str]:
        return {entry["id"] for entry in json.loads(run("list", "--json", *options).output)}

    assert listed("--by", "failure") == {failure, lost}
    assert listed("--code", "model_auth", "--code", "invalid_request") == {mistake, failure}
    assert listed("--user", "u1", "--by", "caller") == {mistake}
    assert listed("--user", "somebody-else") == set()
    dropped = json.loads(run("drop", "--all", "--by", "caller", "--json").output)
    assert dropped == {mistake: "dropped"}
    replayed = run("replay", "--all", "--code", "worker_lost", "--json")
    assert json.loads(replayed.output) == {lost: "replayed"}
    assert listed() == {failure}
    assert run("drop", failure, "--code", "model_auth").exit_code == 2
