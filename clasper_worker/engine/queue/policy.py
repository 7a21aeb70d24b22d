"""The rules by which workers share what is queued."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

from clasper_worker.config.groups import QueueGroup
from clasper_worker.engine.queue.identity import TURN_NAMESPACE

BusyPolicy = Literal["enqueue", "reject", "interrupt", "collect", "rollback"]

_DEAD_LETTERS = 10_000
_LAST_TRIES = 2  # of a message that lost its workers: these it makes alone among its kind
_REMEMBER_CANCELLED_MS = 86_400_000
_KEPT_APART_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class ScheduleRules:
    """What all workers of one broker should agree on.

    Attributes:
        lease_seconds: how long a delivery is a worker's without a sign of life of it.
        lane_depth: how many turns may wait behind the running one of a session.
        tenant_concurrency: how many turns of a user run at a time.
        attempts: how many losses of workers make the message that is blamed for them a dead letter.
        busy: what a turn does whose session is busy, where it does not say.
    """

    lease_seconds: float = 15.0
    lane_depth: int = 100
    tenant_concurrency: int = 50
    attempts: int = 5
    busy: BusyPolicy = "enqueue"

    @classmethod
    def from_settings(cls, settings: QueueGroup) -> Self:
        """The rules as configured."""
        return cls(
            lease_seconds=settings.clasper_visibility_timeout_sec,
            lane_depth=settings.clasper_lane_depth,
            tenant_concurrency=settings.clasper_tenant_concurrency,
            attempts=settings.clasper_max_deliveries,
            busy=settings.clasper_busy_policy,
        )

    def as_json(self, queues: Sequence[tuple[str, Sequence[str]]]) -> str:
        """These rules as the script reads them.

        Args:
            queues: the names to consume, most urgent first, each with its lists' keys.
        """
        return json.dumps(
            {
                "queues": [{"name": name, "keys": list(keys)} for name, keys in queues],
                "lease": int(self.lease_seconds * 1000),
                "depth": self.lane_depth,
                "cap": self.tenant_concurrency,
                "attempts": self.attempts,
                "suspect": max(self.attempts - _LAST_TRIES, 1),
                "busy": self.busy,
                "dead": _DEAD_LETTERS,
                "remember": _REMEMBER_CANCELLED_MS,
                "apart": _KEPT_APART_MS,
                "namespace": TURN_NAMESPACE.hex,
            }
        )
