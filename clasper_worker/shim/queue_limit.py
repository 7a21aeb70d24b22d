"""A full queue is answered at the door: what is enqueued on top of it would wait for hours."""

from __future__ import annotations

from clasper_worker.shim.broker_figures import BrokerWatch
from clasper_worker.shim.http import ApiProblem

_RETRY_AFTER_SECONDS = 10  # a queue that long does not empty sooner


class QueueLimit:
    """A dependency of the routes that enqueue.

    It looks at the figures that were found last, at no cost; only a refusal waits for new ones.

    Args:
        watch: knows what waits.
        limit: messages that may wait, on all queues together (CLASPER_QUEUE_LIMIT).
    """

    def __init__(self, watch: BrokerWatch, limit: int) -> None:
        self._watch = watch
        self._limit = limit

    async def __call__(self) -> None:
        """Let one more message be enqueued.

        Raises:
            ApiProblem: 503, where too many wait.
        """
        waiting = self._watch.latest().waiting
        if waiting >= self._limit:  # perhaps an hour ago, when the last request came
            waiting = (await self._watch.read()).waiting
        if waiting >= self._limit:
            raise ApiProblem(
                503,
                "queue_full",
                f"{waiting:,} messages wait already; at most {self._limit:,} may"
                " (CLASPER_QUEUE_LIMIT). Start more workers, or try again later",
                {"waiting": waiting, "limit": self._limit},
                headers={"Retry-After": str(_RETRY_AFTER_SECONDS)},
            )
