"""When a webhook that was not delivered is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Self

from clasper_worker.config.settings import Settings

_GROWTH = 6.0
_LONGEST_PAUSE_SECONDS = 600.0
_JITTER = 0.15


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """How often, and after what pauses.

    With the defaults: about 20 s, 2 minutes, and then every 10 minutes, for 50 minutes in all.

    Attributes:
        attempts: in all.
        first_pause: seconds before the second attempt; each further pause is six times longer.
        longest_pause: seconds that no pause exceeds, not even one that the receiver asks for. A
            waiting delivery is a message that a worker holds, and it must be back before the
            broker takes it for lost.
    """

    attempts: int = 8
    first_pause: float = 20.0
    longest_pause: float = _LONGEST_PAUSE_SECONDS

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Take it from ``CLASPER_WEBHOOK_*``."""
        return cls(
            attempts=settings.clasper_webhook_attempts,
            first_pause=settings.clasper_webhook_backoff_sec,
            # The broker's visibility timeout is this limit and a minute.
            longest_pause=min(_LONGEST_PAUSE_SECONDS, settings.clasper_turn_hard_limit_sec),
        )

    def pause(self, attempt: int, *, retry_after: float | None = None) -> float | None:
        """Seconds from a failed attempt to the next; None where there is none.

        Args:
            attempt: which one failed; the first is 1.
            retry_after: the seconds that the receiver asked for.
        """
        if attempt >= self.attempts:
            return None
        if retry_after is not None:
            return min(retry_after, self.longest_pause)
        return self._grown(attempt) * (1 - random.random() * _JITTER)  # noqa: S311 - spreads, does not protect

    @property
    def span(self) -> float:
        """Seconds from the first attempt to the last at most, where the receiver asks for none."""
        return sum(self._grown(attempt) for attempt in range(1, self.attempts))

    def _grown(self, attempt: int) -> float:
        # Without the bound on the exponent a large attempt would overflow.
        return min(self.first_pause * _GROWTH ** min(attempt - 1, 50), self.longest_pause)
