"""How much each measure does: enough for steady figures, or just enough to see that all works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of a run.

    Attributes:
        batches: how often a batch of turns is repeated; the median counts.
        throughput_turns: turns of a batch, for each process.
        latency_turns: turns sent at 50 a second.
        in_flight: turns in flight, and how many there are in all.
        enqueued: messages sent, for each way of sending.
        growth_turns: turns for each point of a growth curve.
        queues: lengths of the queue.
        histories: messages before the newest.
        skills: skills in the workspace.
    """

    batches: int = 5
    throughput_turns: int = 2_000
    latency_turns: int = 1_000
    in_flight: tuple[tuple[int, int], ...] = ((2_000, 10_000), (5_000, 15_000))
    enqueued: int = 3_000
    growth_turns: int = 1_500
    queues: tuple[int, ...] = (1_000, 10_000, 100_000)
    histories: tuple[int, ...] = (0, 50, 200)
    skills: tuple[int, ...] = (5, 50, 500)


QUICK = Plan(
    batches=2,
    throughput_turns=600,
    latency_turns=150,
    in_flight=((2_000, 4_000),),
    enqueued=500,
    growth_turns=400,
    queues=(1_000, 20_000),
    histories=(0, 200),
    skills=(5, 500),
)
