"""``clasper dead-letters``: look at the messages that were given up, and decide about them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import click

from clasper_worker.client import ClasperClient
from clasper_worker.config.settings import get_settings
from clasper_worker.engine.queue.dead_letters import DeadLetter, DeadLetters
from clasper_worker.engine.queue.scheduler import open_schedule
from clasper_worker.errors import ConfigurationError
from clasper_worker.observability.redaction import redacted

_PROBLEMS = {
    "unknown": "there is no dead letter {}: see `clasper dead-letters list`",
    "unreadable": "{} is not a message of Celery, so no worker could run it: look at it with"
    " `show --content`, then `drop` it",
    "webhook_gone": "the webhook of {}, with its secret, is gone: it is kept for a day. Replay a"
    " turn with --without-webhook, which reports its end to nobody, or `drop` the letter",
}
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_ALL = click.option("--all", "every", is_flag=True, help="All letters there are.")
_CODE = click.option(
    "--code", "codes", multiple=True, metavar="CODE", help="Only of this code; may be repeated."
)
_USER = click.option("--user", metavar="USER_ID", help="Only of this user.")
_BY = click.option(
    "--by",
    type=click.Choice(["caller", "failure"]),
    help="Only callers' own mistakes, or only what failed otherwise.",
)
_IDS = click.argument("letter_ids", nargs=-1, metavar="[ID]...")


@click.group(
    name="dead-letters",
    epilog="""\b
Example:
  clasper dead-letters list --by failure
  clasper dead-letters replay 6f1c…
""",
)
def command() -> None:
    """Look at the messages that were given up, queue them again, or drop them.

    A message comes here when its turn failed for good, when it lost its worker several times, or
    when nobody could read it.
    """


@command.command(name="list", epilog="Example: clasper dead-letters list --limit 20 --json")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="So many of the newest.",
)
@_CODE
@_USER
@_BY
@_JSON
def list_letters(
    *, limit: int, codes: tuple[str, ...], user: str | None, by: str | None, as_json: bool
) -> None:
    """List the letters, newest first; callers' own mistakes after what failed otherwise.

    A caller's own mistake fails again however often it is replayed: the caller has to send
    something else.
    """
    with _letters() as letters:
        matching = list(letters.find(_filter(codes, user, by) or (lambda _: True)))
    found, total = matching[:limit], len(matching)
    if as_json:
        click.echo(json.dumps([_summary(letter) for letter in found], ensure_ascii=False))
        return
    # Stable: each part stays newest first.
    for is_mistake, part in groupby(sorted(found, key=_is_mistake), key=_is_mistake):
        if is_mistake:
            click.echo("Callers' own mistakes:")
        for letter in part:
            _print(letter)
    if total > len(found):
        click.echo(f"… and {total - len(found)} older ones (--limit)", err=True)
    if not found:
        click.echo("no dead letters", err=True)


def _is_mistake(letter: DeadLetter) -> bool:
    return letter.by == "caller"


def _print(letter: DeadLetter) -> None:
    who = f"user {letter.user_id}" if letter.user_id else "no user"
    click.echo(
        f"{letter.letter_id}  {_when(letter)}  {letter.code}  {letter.queue or '-'}  job"
        f" {letter.job_id or '-'}  {who}  attempts {letter.attempts}\n    {letter.reason}"
    )


@command.command(epilog="Example: clasper dead-letters show 6f1c… --content")
@click.argument("letter_id", metavar="ID")
@click.option("--content", is_flag=True, help="With what the person wrote, and every argument.")
@_JSON
def show(*, letter_id: str, content: bool, as_json: bool) -> None:
    """Show one letter, without people's text unless it is asked for."""
    with _letters() as letters:
        letter = letters.get(letter_id)
    if letter is None:
        _refuse(letter_id)
        sys.exit(1)
    shown = {**_summary(letter), **_request(letter, content=content)}
    if as_json:
        click.echo(json.dumps(shown, ensure_ascii=False))
        return
    for name, value in shown.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
        click.echo(f"{name}: {text}")


@command.command(epilog="Example: clasper dead-letters replay --all --by failure")
@_IDS
@_ALL
@_CODE
@_USER
@_BY
@click.option("--without-webhook", is_flag=True, help="Run turns, and report their ends to nobody.")
@_JSON
def replay(
    *,
    letter_ids: tuple[str, ...],
    every: bool,
    codes: tuple[str, ...],
    user: str | None,
    by: str | None,
    without_webhook: bool,
    as_json: bool,
) -> None:
    """Queue letters' messages again; each letter is dropped in the same step.

    A turn goes on from what it had reached, and posts nothing twice. A webhook's address, secret
    and headers are kept for a day beside the letter: after that it is replayed without, if at all.
    """
    with _letters() as letters:
        chosen = _choose(letters, letter_ids, _filter(codes, user, by), every=every)

        def again(letter_id: str) -> str:
            return letters.replay(letter_id, without_webhook=without_webhook)

        _for_each(chosen, again, every=every, as_json=as_json)


@command.command(epilog="Example: clasper dead-letters drop 6f1c…")
@_IDS
@_ALL
@_CODE
@_USER
@_BY
@_JSON
def drop(
    *,
    letter_ids: tuple[str, ...],
    every: bool,
    codes: tuple[str, ...],
    user: str | None,
    by: str | None,
    as_json: bool,
) -> None:
    """Forget letters for good."""
    with _letters() as letters:

        def forget(letter_id: str) -> str:
            return "dropped" if letters.drop(letter_id) else "unknown"

        chosen = _choose(letters, letter_ids, _filter(codes, user, by), every=every)
        _for_each(chosen, forget, every=every, as_json=as_json)


def _filter(
    codes: tuple[str, ...], user: str | None, by: str | None
) -> Callable[[DeadLetter], bool] | None:
    """Which letters are meant; None where all are."""
    if not codes and user is None and by is None:
        return None
    return lambda letter: (
        (not codes or letter.code in codes)
        and (user is None or letter.user_id == user)
        and (by is None or letter.by == by)
    )


def _choose(
    letters: DeadLetters,
    letter_ids: tuple[str, ...],
    wanted: Callable[[DeadLetter], bool] | None,
    *,
    every: bool,
) -> tuple[str, ...]:
    if every == bool(letter_ids):
        raise click.UsageError("Name the letters' ids, or give --all.")
    if wanted is not None and not every:
        raise click.UsageError("--code, --user and --by go with --all, not with ids.")
    if not every:
        return letter_ids
    # Oldest first, so that turns of one session come in the order in which they were sent.
    if wanted is None:
        return tuple(reversed(letters.ids()))
    return tuple(letter.letter_id for letter in reversed(list(letters.find(wanted))))


def _for_each(
    wanted: tuple[str, ...], act: Callable[[str], str], *, every: bool, as_json: bool
) -> None:
    outcomes = {letter_id: act(letter_id) for letter_id in wanted}
    failed = False
    for letter_id, outcome in outcomes.items():
        if outcome == "unknown" and every:
            continue  # somebody else was faster
        if outcome in _PROBLEMS:
            failed = True
            _refuse(letter_id, outcome)
        elif not as_json:
            click.echo(f"{outcome} {letter_id}")
    if as_json:
        click.echo(json.dumps(outcomes))
    sys.exit(1 if failed else 0)


def _refuse(letter_id: str, problem: str = "unknown") -> None:
    click.echo(f"Error: {_PROBLEMS[problem].format(letter_id)}", err=True)


@contextmanager
def _letters() -> Iterator[DeadLetters]:
    settings = get_settings()
    schedule = open_schedule(settings)
    if schedule is None:
        raise ConfigurationError(
            "Dead letters are kept with Redis as the broker; look for them in the dead-letter"
            " exchange of the broker that CELERY_BROKER_URL names",
            {"variable": "CELERY_BROKER_URL"},
        )
    client = ClasperClient.from_settings(settings)
    try:
        yield DeadLetters(schedule, client.app)
    finally:
        schedule.close()
        client.close()


def _summary(letter: DeadLetter) -> dict[str, Any]:
    message = letter.message
    return {
        "id": letter.letter_id,
        "job_id": letter.job_id,
        "user_id": letter.user_id,
        "queue": letter.queue,
        "task": message.task if message else "",
        "code": letter.code,
        "by": letter.by,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "at": _when(letter),
    }


def _request(letter: DeadLetter, *, content: bool) -> dict[str, Any]:
    message = letter.message
    if message is None or message.kwargs is None:
        if content:
            return {"raw": letter.raw.decode("utf-8", "backslashreplace")}
        return {"raw": f"<{len(letter.raw)} bytes>"}
    if content:
        return {"turn_id": message.turn_id, "request": dict(message.kwargs)}
    return {"turn_id": message.turn_id, "request": redacted(message.kwargs)}


def _when(letter: DeadLetter) -> str:
    return letter.at.isoformat(timespec="seconds").replace("+00:00", "Z")
