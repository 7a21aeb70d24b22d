"""`clasper up` from beginning to end: prepare, start, announce, run, stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from clasper_worker.config.settings import Settings
from clasper_worker.devkit.local_stack.banner import banner, first_try
from clasper_worker.devkit.local_stack.console import StackConsole
from clasper_worker.devkit.local_stack.plan import (
    Provisions,
    StackNeeds,
    StackOptions,
    StackPlan,
    needs_of,
    plan_stack,
    proxy_exceptions,
)
from clasper_worker.devkit.local_stack.ports import (
    PortReservations,
    PortWishes,
    choose_ports,
    moved_ports,
)
from clasper_worker.devkit.local_stack.probes import check_broker
from clasper_worker.devkit.local_stack.redis_binary import NO_SERVER, find_redis
from clasper_worker.devkit.local_stack.state_file import local_secrets, write_stack_file
from clasper_worker.devkit.local_stack.supervisor import Supervisor
from clasper_worker.engine.processes.guard import Guard
from clasper_worker.errors import StackError
from clasper_worker.prompt.workspace.reader import missing_workspace

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class PreparedStack:
    """Everything decided, nothing started; its ports are held until it runs.

    Attributes:
        notes: what the operator may not expect, for the log.
    """

    settings: Settings
    options: StackOptions
    needs: StackNeeds
    provisions: Provisions
    plan: StackPlan
    reservations: PortReservations
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The processes' names."""
        return tuple(spec.name for spec in self.plan.processes)


def prepare_stack(
    settings: Settings, options: StackOptions, wishes: PortWishes, data_dir: Path
) -> PreparedStack:
    """Check what the operator named, and choose servers, ports and secrets for the rest.

    Args:
        settings: the operator's.
        options: what runs.
        wishes: ports asked for.
        data_dir: where the stack's own servers keep their data; it exists.

    Raises:
        ConfigurationError: a setting is missing, or the workspace is.
        StackError: the broker cannot be used, or there is no server or port for one.
    """
    needs = needs_of(settings)
    if not settings.clasper_workspace.is_dir():
        raise missing_workspace(settings.clasper_workspace)
    redis = find_redis(allow_fake=True) if needs.broker else None
    if needs.broker and redis is None:
        raise StackError(NO_SERVER)
    if not needs.broker:
        check_broker(settings.celery_broker_url, settings)
    if redis is not None:
        (data_dir / "redis").mkdir(mode=0o700, exist_ok=True)
    if wishes.shim is None and "clasper_port" in settings.model_fields_set:
        wishes = replace(wishes, shim=settings.clasper_port)
    reservations = PortReservations()
    try:
        provisions = Provisions(
            data_dir=data_dir,
            redis=redis,
            secrets=local_secrets(data_dir) if needs.backend else None,
            ports=choose_ports(wishes, _wanted_servers(needs, options), reservations),
            # A name of its own: on a broker that others use too, only our worker must answer.
            node=f"clasper-{os.getpid()}@{socket.gethostname()}",
            proxy_exceptions=proxy_exceptions(os.environ),
        )
        plan = plan_stack(settings, needs, provisions, options)
    except BaseException:
        reservations.release()
        raise
    notes = tuple(_notes(provisions, wishes))
    return PreparedStack(settings, options, needs, provisions, plan, reservations, notes)


async def run_stack(
    stack: PreparedStack, console: StackConsole, on_ready: Callable[[], None]
) -> None:
    """Run a prepared stack until Ctrl-C, SIGTERM or SIGHUP; all its processes are gone afterwards.

    Args:
        stack: from :func:`prepare_stack`.
        console: for the log and the banner.
        on_ready: called once everything answers, before the banner.

    Raises:
        StackError: a process did not start, or ended more often than it is restarted.
    """
    loop = asyncio.get_running_loop()
    for note in stack.notes:
        console.say(note)
    console.say(f"starting {', '.join(stack.names)}")
    with Guard() as guard, stack.reservations:
        supervisor = Supervisor(stack.plan.processes, console, guard)
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, supervisor.ask_to_stop)

        def ready() -> None:
            stack.reservations.release()
            write_stack_file(
                stack.settings.clasper_state_dir,
                environment=stack.plan.environment,
                urls=stack.plan.urls,
            )
            on_ready()
            console.show(
                banner(stack.settings, stack.needs, stack.provisions, stack.options, stack.plan)
            )
            console.show(first_try(), wrap=False)

        await supervisor.run(ready)
    console.say("stopped")


def _wanted_servers(needs: StackNeeds, options: StackOptions) -> set[str]:
    """Which servers of the stack need a port, by the names of `StackPorts`."""
    wanted = {
        "broker": needs.broker,
        "backend": needs.backend,
        "model": needs.model,
        "shim": True,
        "flower": options.flower,
    }
    return {name for name, is_wanted in wanted.items() if is_wanted}


def _notes(provisions: Provisions, wishes: PortWishes) -> Iterator[str]:
    yield from moved_ports(wishes, provisions.ports)
    if provisions.redis is not None and not provisions.redis.durable:
        yield (
            "no Redis server on this machine: fakeredis takes its place, in memory. What is queued "
            "is lost when this stops. Install redis-server or valkey-server to keep it."
        )
