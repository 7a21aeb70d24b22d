"""The check of what a schedule's ticks enqueued: one heartbeat for each agent that came due."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from turns import Faults

from clasper_worker.periodic.agents import Agent


def users_due(agents: Iterable[Agent], interval: float, after: float, until: float) -> set[str]:
    """The users of the agents that come due after one moment, up to another.

    Args:
        agents: all that there are, each of a user of its own.
        interval: seconds in which each comes due once, at its own place.
        after: seconds since the epoch.
        until: as ``after``, and at most an interval later.
    """

    def rounds(moment: float, place: float) -> int:
        return math.floor(moment / interval - place)

    return {
        agent.user_id for agent in agents if rounds(until, agent.place) > rounds(after, agent.place)
    }


def check_enqueued(due: set[str], users: Iterable[str]) -> Faults:
    """Whether a heartbeat was enqueued for each user who is due, once, and for nobody else.

    Args:
        due: the users.
        users: those for whom one was enqueued, each as often as it was.
    """
    found = Counter(users)
    return Faults(
        missing=len(due - found.keys()),
        wrong=len(found.keys() - due),
        doubled=sum(found.values()) - len(found),
    )
