"""How much each measure does: enough for steady figures, or just enough to see that all works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of a run.

    Attributes:
        batches: how often a batch of turns is repeated; the median counts.
        batch_seconds: about how long a batch takes; its size follows from the last one's rate.
        warm_up: turns that each new worker carries out before it is measured.
        compare: whether Celery's own pools are measured as well.
        latency_turns: turns sent at 50 a second.
        in_flight: slots (``-c``), and how many turns there are in all.
        enqueued: messages sent, for each way of sending.
        queues: lengths of the queue.
        histories: messages before the newest.
        skills: skills in the workspace.
        notified: users with undelivered notifications, and how many of them each has.
        notified_trials: how often that is measured; the median counts.
        agents: agents whose heartbeats are scheduled.
        agents_seconds: for how long their schedule is watched.
        streamed: turns of a batch whose streaming is measured, and streams at a time of which the
            first token is timed, for how many turns.
        listeners: turns that are followed, and how many listeners they have in all.
    """

    batches: int = 5
    batch_seconds: float = 4.0
    warm_up: int = 400
    compare: bool = True
    latency_turns: int = 1_000
    in_flight: tuple[tuple[int, int], ...] = ((2_000, 6_000), (5_000, 10_000))
    enqueued: int = 2_000
    queues: tuple[int, ...] = (1_000, 10_000, 100_000)
    histories: tuple[int, ...] = (0, 50, 200)
    skills: tuple[int, ...] = (5, 50, 500)
    notified: tuple[int, int] = (200, 5)
    notified_trials: int = 3
    agents: int = 10_000
    agents_seconds: float = 60.0
    streamed: tuple[int, int, int] = (1_500, 50, 500)
    listeners: tuple[int, int] = (500, 5_000)


QUICK = Plan(
    batches=1,
    batch_seconds=1.5,
    warm_up=60,
    compare=False,
    latency_turns=100,
    in_flight=((500, 750),),
    enqueued=200,
    queues=(1_000,),
    histories=(200,),
    skills=(500,),
    notified=(50, 2),
    notified_trials=1,
    agents=10_000,
    agents_seconds=20.0,
    streamed=(300, 50, 100),
    listeners=(50, 500),
)
