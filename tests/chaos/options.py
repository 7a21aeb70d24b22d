"""How large the matrix is, and where it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace

FLUSHED = (
    "clasper:turn:*",
    "clasper:journal:*",
    "clasper:lease*",
    "celery-task-meta-*",
)
"""Keys that may be lost at any time: leases, journals and results; not lanes, not queues."""


@dataclass(frozen=True, slots=True)
class Options:
    """What can be asked of a run.

    Attributes:
        seed: of everything that is random.
        turns: sent for each fault at each point, or in each outage; at least.
        rounds: how often each fault strikes at each point.
        points: of a turn that faults strike at; 0 for all.
        outage_seconds: how long servers are down and Redis is paused.
        visibility_seconds: CLASPER_VISIBILITY_TIMEOUT_SEC of the workers.
        kills: in the row of kills at random microseconds.
        many: turns in the row of many turns.
        kill_every: seconds between kills there, at most; half of that at least.
        waiting: turns in the row of a long outage, which lasts four times as long as the others.
        copies: of one turn, enqueued at once.
        notified: notifications in the row of those.
        notified_users: whose they are.
        takeovers: how often the leading Beat is killed.
        concurrency: of each worker (``-c``).
        plain: start each worker from nothing instead of forking it.
        recovery_seconds: within which turns of killed workers must have gone on, where a row says
            so; None for no such limit.
        takeover_seconds: within which another Beat must send its first tick; None for no limit.
        flushed: patterns of keys for the row that flushes.
    """

    seed: int = 0
    turns: int = 20
    rounds: int = 2
    points: int = 0
    outage_seconds: float = 30.0
    visibility_seconds: float = 15.0
    kills: int = 300
    many: int = 10_000
    kill_every: float = 5.0
    waiting: int = 1_000
    copies: int = 50
    notified: int = 1_000
    notified_users: int = 200
    takeovers: int = 6
    concurrency: int = 8
    plain: bool = False
    recovery_seconds: float | None = 20.0
    takeover_seconds: float | None = 15.0
    flushed: tuple[str, ...] = FLUSHED

    def quick(self) -> Options:
        """The same in small: every row, in seconds each."""
        return replace(
            self,
            rounds=1,
            outage_seconds=5.0,
            visibility_seconds=5.0,
            kills=20,
            many=400,
            waiting=100,
            notified=60,
            notified_users=20,
            takeovers=2,
            recovery_seconds=None,
            takeover_seconds=None,
        )

    @property
    def patience(self) -> float:
        """How long nothing may move before the turns that have not ended are given up."""
        return 3 * self.visibility_seconds + 30.0

    @property
    def quiet(self) -> float:
        """How long to look on after all turns have ended, for what comes late."""
        return 1.5 * self.visibility_seconds + 2.0
