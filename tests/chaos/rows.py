"""The matrix: one row a fault."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.chaos import (
    floods,
    notifications,
    outages,
    rabbitmq_faults,
    redis_faults,
    refusals,
    streaming_faults,
    takeovers,
    worker_faults,
)
from tests.chaos.options import Options
from tests.chaos.outages import Outage
from tests.chaos.scene import Scene
from tests.rabbitmq import find_rabbitmq


def _unlimited(options: Options) -> None:
    del options


def _lease(options: Options) -> float | None:
    return options.recovery_seconds


def _takeover(options: Options) -> float | None:
    return options.takeover_seconds


@dataclass(frozen=True)
class Row:
    """One fault, and how it is brought about.

    Attributes:
        name: for ``--row``.
        title: for the table.
        play: does it, once the scene is set; the turns are settled and checked afterwards.
        latency: of the model, in seconds.
        slow: of turns that are to be slow, in leases.
        pause: between the pieces of a streamed answer, in seconds.
        allowed: promises that do not hold here (`results.RowResult.broken`).
        limit: in seconds, for recoveries.
        alone: whether it takes all of the machine, and runs beside no other.
        with_rabbitmq: whether the broker is a RabbitMQ, which has to be installed.
    """

    name: str
    title: str
    play: Callable[[Scene], None]
    latency: float = 0.1
    slow: float = 0.0
    pause: float = 0.0
    allowed: tuple[str, ...] = ()
    limit: Callable[[Options], float | None] = _unlimited
    alone: bool = False
    with_rabbitmq: bool = False

    @property
    def missing(self) -> str | None:
        """What would have to be installed to play it; None: nothing."""
        return "rabbitmq-server" if self.with_rabbitmq and find_rabbitmq() is None else None

    def slow_seconds(self, options: Options) -> float:
        """What slow turns take."""
        return self.slow * options.visibility_seconds


def _outage(name: str, title: str, outage: Outage) -> Row:
    return Row(name, title, partial(outages.suffer, outage=outage))


def _streamed(name: str, title: str, strike: streaming_faults.Strike) -> Row:
    return Row(name, title, partial(streaming_faults.listen_through, strike=strike), pause=0.1)


ROWS = (
    Row(
        "kill",
        "kill -9 the worker",
        partial(worker_faults.kill_at_points, workers=1),
        limit=_lease,
    ),
    Row(
        "kill-one",
        "kill -9 one of two workers",
        partial(worker_faults.kill_at_points, workers=2),
        limit=_lease,
    ),
    Row(
        "prefork",
        "-P prefork: its children killed, and replaced every three turns",
        worker_faults.kill_children_at_points,
    ),
    Row("sigterm", "SIGTERM", partial(worker_faults.stop_at_points, number=signal.SIGTERM)),
    Row("sigquit", "SIGQUIT", partial(worker_faults.stop_at_points, number=signal.SIGQUIT)),
    Row("freeze", "SIGSTOP past the lease, then SIGCONT", worker_faults.freeze_at_points),
    Row("long", "turns of four leases' time; other workers killed", floods.long_turns, slow=4.0),
    Row("redis-kill", "Redis killed and restarted (AOF)", redis_faults.kill_redis),
    Row(
        "redis-flush",
        "leases, journals and results deleted from Redis",
        redis_faults.flush_state,
        allowed=("repeated", "unreported"),
    ),
    Row("redis-pause", "Redis stands still", redis_faults.pause_redis),
    Row(
        "read-only",
        "Redis is a replica for 1.5 s, ten times (READONLY)",
        partial(refusals.blink, what="READONLY", refusing=refusals.read_only),
    ),
    Row(
        "busy",
        "a script keeps Redis busy for 1.5 s, ten times (BUSY)",
        partial(refusals.blink, what="BUSY", refusing=refusals.busy),
    ),
    Row(
        "full",
        "Redis has no memory left (OOM)",
        partial(refusals.strike, what="OOM", refusing=refusals.full),
    ),
    Row("half-open", "connections of our own state fall silent, unclosed", refusals.half_open),
    _outage("backend-down", "backend down", Outage("backend", "down")),
    _outage("backend-500", "backend answers 500", Outage("backend", "error")),
    _outage(
        "backend-429", "backend answers 429, Retry-After 5", Outage("backend", "rate_limit", 1.0, 5)
    ),
    _outage("backend-slow", "backend slow, 3 s a call", Outage("backend", "slow", 1.0, 3)),
    _outage(
        "backend-reset",
        "backend stores, then resets half of its answers",
        Outage("backend", "reset", 0.5),
    ),
    _outage("model-down", "model down", Outage("model", "down")),
    _outage("model-429", "model answers 429, Retry-After 5", Outage("model", "rate_limit", 1.0, 5)),
    _outage(
        "model-half",
        "model closes in the middle of half of its answers",
        Outage("model", "half", 0.5),
    ),
    Row("model-queue", "many turns wait while the model answers 500", outages.queue_up),
    _streamed("stream-kill", "streams: kill -9 a worker", streaming_faults.kill_worker),
    _streamed("stream-shim", "streams: kill -9 one of two shims", streaming_faults.kill_shim),
    _streamed("stream-redis", "streams: Redis killed and restarted", streaming_faults.kill_redis),
    _streamed(
        "stream-model",
        "streams: model closes in the middle of half of them",
        streaming_faults.cut_model,
    ),
    Row("same-key", "each turn enqueued many times at once, one key", floods.same_key),
    Row("same-id", "each turn enqueued twice or thrice, one Celery id", floods.same_id),
    Row(
        "beat",
        "kill -9 the leading Beat, while a stock one ticks too",
        takeovers.take_over,
        limit=_takeover,
    ),
    Row(
        "notifications",
        "notifications; workers killed, half of the acknowledgements fail",
        notifications.acknowledge,
        latency=1.0,
    ),
    Row(
        "rabbitmq",
        "RabbitMQ: kill -9 a worker, close its connections, restart it",
        rabbitmq_faults.disturb_rabbitmq,
        with_rabbitmq=True,
    ),
    Row(
        "random-kills",
        "kill -9 at random microseconds, messages arriving",
        floods.random_kills,
        latency=0.02,
        alone=True,
    ),
    Row(
        "many",
        "many turns, a random worker killed every few seconds",
        floods.many_turns,
        latency=0.05,
        alone=True,
    ),
)


def find_rows(names: tuple[str, ...]) -> tuple[Row, ...]:
    """The rows of these names, in the matrix's order; all of them for none.

    Raises:
        KeyError: there is no row of a name.
    """
    known = {row.name: row for row in ROWS}
    if unknown := [name for name in names if name not in known]:
        raise KeyError(unknown[0])
    return tuple(row for row in ROWS if not names or row.name in names)
