"""``clasper dispatch``: the dispatcher as a process of its own, or one poll of it."""

from __future__ import annotations

import asyncio
import json
import signal
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict

import click

from clasper_worker.config.settings import Settings, get_settings
from clasper_worker.engine.http.client import open_http_client
from clasper_worker.errors import ClasperError, ConfigurationError
from clasper_worker.mission_control.internal import InternalBackend
from clasper_worker.mission_control.transport import BackendTransport
from clasper_worker.observability.logs import configure_logging
from clasper_worker.periodic.dispatch import Dispatcher, DispatchRules, Poll
from clasper_worker.periodic.enqueue import ShimQueue
from clasper_worker.periodic.notes import Notes, OwnNotes
from clasper_worker.process import Jobs

_NOTHING = {
    "unsupported": "the backend has no feature notifications_dispatch",
    "elsewhere": "another dispatcher is polling",
    "too_soon": "the last poll was just now",
}


@click.command(name="dispatch", epilog="Example: clasper dispatch --once")
@click.option("--once", is_flag=True, help="Poll once and end.")
@click.option("--http", is_flag=True, help="Hand turns to the shim (AGENT_DAEMON_URL): no broker.")
@click.option("--json", "as_json", is_flag=True, help="Print what each poll did as JSON.")
def command(*, once: bool, http: bool, as_json: bool) -> None:
    """Poll the backend's undelivered notifications and enqueue a turn for each.

    Beat has the workers do the same (clasper beat); any number of dispatchers may run beside it.
    Workers run the turns, and acknowledge each notification when its reply is posted. Exit code 0
    with --once only if the backend was asked; without, when stopped by SIGINT or SIGTERM.
    """
    settings = get_settings()
    configure_logging(settings)
    asyncio.run(_dispatch(settings, once=once, http=http, as_json=as_json))


async def _dispatch(settings: Settings, *, once: bool, http: bool, as_json: bool) -> None:
    if settings.backend_url is None:
        raise ConfigurationError(
            "No BACKEND_URL is configured: set it to your backend's address, or run `clasper up`",
            {"variable": "BACKEND_URL"},
        )
    async with AsyncExitStack() as resources:
        client = open_http_client(settings.clasper_backend_timeout_sec, settings.backend_url)
        resources.push_async_callback(client.aclose)
        transport = BackendTransport(client)
        backend = InternalBackend.from_settings(settings, transport)
        notes: Notes
        shim: ShimQueue | None = None
        if http:
            shim = ShimQueue.from_settings(settings)
            resources.push_async_callback(shim.aclose)
            notes = OwnNotes()
            dispatcher = Dispatcher(backend, notes, shim, DispatchRules.from_settings(settings))
        else:
            jobs = Jobs.open(settings)
            resources.push_async_callback(jobs.close)
            notes, dispatcher = jobs.slots, jobs.dispatcher(backend)

        async def look_after() -> None:
            if shim is not None:
                await shim.look_after(notes)

        holder = str(uuid.uuid4())
        if once:
            await _once(dispatcher, holder, as_json=as_json)
        else:
            interval = settings.dispatch_min_interval_sec
            await _until_stopped(dispatcher, holder, interval, look_after, as_json=as_json)


async def _once(dispatcher: Dispatcher, holder: str, *, as_json: bool) -> None:
    poll = await dispatcher.poll(holder, at_once=True)
    for _ in range(50):
        if poll.outcome != "elsewhere":
            break
        await asyncio.sleep(0.2)
        poll = await dispatcher.poll(holder, at_once=True)
    if as_json or poll.outcome == "polled":
        _show(poll, as_json=as_json)
    if poll.outcome != "polled":
        raise ConfigurationError(f"Nothing was dispatched: {_NOTHING[poll.outcome]}")


async def _until_stopped(
    dispatcher: Dispatcher,
    holder: str,
    interval: float,
    look_after: Callable[[], Awaitable[None]],
    *,
    as_json: bool,
) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    click.echo("dispatcher: polling; Ctrl-C stops it", err=True)
    while not stopped.is_set():
        try:
            await look_after()
            poll = await dispatcher.poll(holder)
        except ConfigurationError:
            raise
        except ClasperError as exc:
            click.echo(f"dispatcher: {exc}", err=True)
        else:
            if poll.enqueued or poll.malformed or poll.outcome == "unsupported":
                _show(poll, as_json=as_json)
        with suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), interval)


def _show(poll: Poll, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(poll)))
    elif poll.outcome == "polled":
        text = f"dispatch_ok: {poll.found} undelivered, {poll.enqueued} enqueued"
        click.echo(text + (f", {poll.malformed} malformed" if poll.malformed else ""))
    else:
        click.echo(f"dispatch: {_NOTHING[poll.outcome]}")
