"""``clasper status``: what waits, runs and is stuck, and who works."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

import click
import redis
from kombu.exceptions import OperationalError

from clasper_worker.client import ClasperClient
from clasper_worker.config.settings import Settings, load_settings
from clasper_worker.engine.circuit.open_circuits import OpenCircuit, read_open_circuits
from clasper_worker.engine.queue.queue_status import BrokerStatus, QueueStatus, read_broker_status
from clasper_worker.engine.queue.scheduler import open_schedule
from clasper_worker.engine.redis.connections import blocking_client, shown_url
from clasper_worker.errors import StateUnavailableError

_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Status:
    """What the command shows.

    Attributes:
        broker: its address, without secrets.
        queues: None where the broker is not Redis, which tells of no more than workers.
        workers: the Celery nodes that answered, by name.
        circuits: the hosts that all workers leave alone.
    """

    broker: str
    queues: BrokerStatus | None
    workers: tuple[str, ...]
    circuits: tuple[OpenCircuit, ...]

    @property
    def verdict(self) -> str:
        """``no_workers`` while work waits for nobody, ``degraded`` or ``ok``."""
        if not self.workers and (self.queues is None or self.queues.waiting):
            return "no_workers"
        return "degraded" if self.circuits or (self.queues and self.queues.suspect) else "ok"


@click.command(name="status", epilog="Example: clasper status --json")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1, max=60),
    default=1.0,
    show_default=True,
    help="Seconds to wait for workers to answer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, timeout: float, as_json: bool) -> None:
    """Show what waits, runs and is stuck in each queue, the workers, and open circuits.

    Exit code 0 while work is being done or there is none, 1 where work waits and no worker answers,
    or where the broker does not answer.
    """
    settings = load_settings()
    try:
        status = read_status(settings, timeout)
    except StateUnavailableError as exc:
        if as_json:
            click.echo(json.dumps({"status": "unavailable", "error": exc.code, "reason": str(exc)}))
            sys.exit(1)
        raise
    if as_json:
        click.echo(json.dumps(_as_json(status)))
    else:
        _print(status)
    sys.exit(1 if status.verdict == "no_workers" else 0)


def read_status(settings: Settings, timeout: float) -> Status:
    """Ask the broker, our own Redis and the workers.

    Args:
        settings: where they are.
        timeout: seconds to wait for workers.

    Raises:
        StateUnavailableError: the broker or our own Redis does not answer.
    """
    schedule = open_schedule(settings)
    queues = None
    if schedule is not None:
        with contextlib.closing(schedule):
            queues = read_broker_status(schedule)
    return Status(
        shown_url(settings.celery_broker_url),
        queues,
        _workers(settings, timeout),
        _circuits(settings),
    )


def _workers(settings: Settings, timeout: float) -> tuple[str, ...]:
    client = ClasperClient.from_settings(settings)
    try:
        answers = client.app.control.ping(timeout=timeout)
    except (OperationalError, redis.RedisError, OSError) as exc:
        raise StateUnavailableError(
            f"The broker did not answer ({type(exc).__name__}): check CELERY_BROKER_URL"
        ) from exc
    finally:
        client.close()
    return tuple(sorted(node for answer in answers or () for node in answer))


def _circuits(settings: Settings) -> tuple[OpenCircuit, ...]:
    options = {"socket_timeout": _SECONDS, "socket_connect_timeout": _SECONDS}
    own: Any = blocking_client(settings.redis_url, settings, **options)
    try:
        return read_open_circuits(own)
    except (redis.RedisError, OSError) as exc:
        raise StateUnavailableError(
            f"Redis did not answer ({type(exc).__name__}): check CLASPER_REDIS_URL"
        ) from exc
    finally:
        own.close()


def _as_json(status: Status) -> dict[str, Any]:
    queues = status.queues
    return {
        "status": status.verdict,
        "broker": status.broker,
        "waiting": queues and queues.waiting,
        "running": queues and queues.running,
        "capped": queues and queues.capped,
        "suspect": queues and queues.suspect,
        "dead": queues and queues.dead,
        "oldest_seconds": queues and queues.oldest,
        "queues": {name: _queue(one) for name, one in queues.queues.items()} if queues else None,
        "workers": list(status.workers),
        "open_circuits": [asdict(circuit) for circuit in status.circuits],
    }


def _queue(one: QueueStatus) -> dict[str, Any]:
    return {"waiting": one.waiting, "running": one.running, "oldest": one.oldest}


def _print(status: Status) -> None:
    click.echo(f"broker    {status.broker}")
    click.echo(f"workers   {', '.join(status.workers) or 'none'}")
    queues = status.queues
    if queues is None:
        click.echo("queues    ask the broker itself: only Redis is looked into")
    else:
        click.echo(f"{'queue':<20}{'waiting':>9}{'running':>9}  oldest")
        for name, one in queues.queues.items():
            age = "-" if one.oldest is None else f"{one.oldest:.0f} s"
            click.echo(f"{name:<20}{one.waiting:>9}{one.running:>9}  {age}")
        click.echo(
            f"capped users {queues.capped} · suspect messages {queues.suspect} · dead letters"
            f" {queues.dead}{' (clasper dead-letters list)' if queues.dead else ''}"
        )
    for circuit in status.circuits:
        click.echo(f"open circuit: {circuit.host} ({circuit.why}, {circuit.seconds:.0f} s)")
    if status.verdict == "no_workers":
        click.echo("No worker answers: start one with `clasper worker`.", err=True)
