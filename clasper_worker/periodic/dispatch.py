"""The dispatcher: each undelivered notification becomes one turn.

The backend goes on listing a notification until it is acknowledged, which is done when its reply
has been posted. Meanwhile a note in Redis says that it is being seen to, so that polls leave it
alone. Notes are no more than that: should one be lost, or run out, the notification's turn is
enqueued again, and being the same turn (its idempotency key is the notification's) it is not run
again.

One poll runs at a time on all workers. How soon the next may begin depends on what this one found:
soon while there is something, later and later while there is nothing, rarely where the backend
has no notifications to dispatch.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import structlog

from clasper_worker.config.names import DISPATCH_QUEUE, SEND_TASK
from clasper_worker.config.settings import Settings
from clasper_worker.errors import (
    BackendError,
    BackendNotFoundError,
    BackendRejectedError,
    BackendUnavailableError,
    ConfigurationError,
)
from clasper_worker.mission_control.internal import InternalBackend
from clasper_worker.observability import metrics
from clasper_worker.periodic.enqueue import Job, JobQueue
from clasper_worker.periodic.notes import Notes
from clasper_worker.periodic.notification import (
    GIVEN_UP_SECONDS,
    Malformed,
    NotificationTurn,
    read_delivery,
)
from clasper_worker.turn.request import RequestLimits

UNDER_WAY_SECONDS = 3600.0
"""How long a note says that a notification is being seen to, if nothing else is heard of it."""
LAST_POLL = "dispatch:last"
"""The note of the last poll: the seconds after which the next one was due."""
LAST_POLL_SECONDS = 86_400
"""How long that note is kept: what it has left says when the poll was."""
_RARELY_SECONDS = 300.0  # between looks at a backend that does not dispatch notifications
_WIDEST = 1000  # users, and notifications of each, that are asked for
_POLL_SECONDS = 20.0  # after which a poll asks for no wider page
_LONGEST_POLL_SECONDS = 45.0
_SLOT = 0.75  # of an interval: ticks come a little early or late
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DispatchRules:
    """How notifications are polled.

    Attributes:
        users: asked for at first.
        notifications: of each user asked for at first.
        min_interval: seconds between polls while there are notifications.
        max_interval: seconds between polls while there are none, in the end.
        in_session: turns of one session that may be under way; more would overfill its lane.
        default_title: of the task for notifications that name none.
        limits: caps on a turn's request.
    """

    users: int = 25
    notifications: int = 25
    min_interval: float = 2.0
    max_interval: float = 30.0
    in_session: int = 50
    default_title: str | None = None
    limits: RequestLimits = RequestLimits()  # noqa: RUF009 - frozen

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """As configured."""
        return cls(
            users=settings.dispatch_limit_users,
            notifications=settings.dispatch_limit_notifications,
            min_interval=settings.dispatch_min_interval_sec,
            max_interval=max(
                settings.dispatch_min_interval_sec, settings.dispatch_max_interval_sec
            ),
            in_session=max(1, settings.clasper_lane_depth // 2),
            default_title=settings.clasper_default_task,
            limits=RequestLimits.from_settings(settings),
        )


@dataclass(frozen=True, slots=True)
class Poll:
    """What one poll did.

    Attributes:
        outcome: ``polled``; ``too_soon`` after the last one; ``elsewhere``, another poll is under
            way; ``unsupported``, the backend has no notifications to dispatch.
        found: undelivered notifications that the backend listed.
        enqueued: those of them that became a turn now.
        malformed: those that cannot become one; they went to the dead letters.
        pages: how often the backend was asked.
    """

    outcome: Literal["polled", "too_soon", "elsewhere", "unsupported"]
    found: int = 0
    enqueued: int = 0
    malformed: int = 0
    pages: int = 0


@dataclass(frozen=True, slots=True)
class _Page:
    deliveries: Sequence[Any]
    fresh: int
    malformed: int


class Dispatcher:
    """Polls one backend.

    Args:
        backend: under the internal token.
        slots: notes and locks, shared by all workers unless it runs apart from them.
        queue: where the turns go.
        rules: the operator's.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        backend: InternalBackend,
        slots: Notes,
        queue: JobQueue,
        rules: DispatchRules,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._slots = slots
        self._queue = queue
        self._rules = rules
        self._clock = clock

    async def poll(self, holder: str, *, at_once: bool = False) -> Poll:
        """Enqueue a turn for each notification that is not being seen to.

        Args:
            holder: names this poll among others.
            at_once: whether it may come sooner than the last one asked for.

        Raises:
            BackendError: the backend did not answer as it should; the next poll comes later.
            ConfigurationError: there is no internal token.
            StateUnavailableError: Redis or the broker does not answer.
        """
        async with self._slots.lock("dispatch", holder) as is_mine:
            if not is_mine:
                return Poll("elsewhere")
            (wait, last) = await self._slots.read(["dispatch:wait", "dispatch:pause"])
            if wait is not None and not at_once:
                return Poll("too_soon")
            pause = float(last or 0)
            try:
                async with asyncio.timeout(_LONGEST_POLL_SECONDS):
                    poll = await self._poll()
            except TimeoutError:
                await self._pause(self._longer(pause))
                raise BackendUnavailableError(
                    "The backend did not list undelivered notifications in time"
                ) from None
            except (BackendError, ConfigurationError) as exc:
                is_setup = isinstance(exc, ConfigurationError)
                await self._pause(_RARELY_SECONDS if is_setup else self._longer(pause))
                raise
            if poll.outcome == "unsupported":
                await self._pause(_RARELY_SECONDS)
            else:
                await self._pause(self._rules.min_interval if poll.found else self._longer(pause))
        return poll

    def _longer(self, pause: float) -> float:
        return min(max(2 * pause, self._rules.min_interval), self._rules.max_interval)

    async def _pause(self, seconds: float) -> None:
        await self._slots.write(["dispatch:wait"], "1", seconds * _SLOT)
        await self._slots.write(["dispatch:pause"], f"{seconds:g}", 10 * seconds)
        await self._slots.write([LAST_POLL], f"{seconds:g}", LAST_POLL_SECONDS)

    async def _poll(self) -> Poll:
        if await self._backend.has("notifications_dispatch") is False:
            return Poll("unsupported")
        # What is being seen to is listed still: to see past it, a full page is asked for again at
        # once, twice as wide.
        users, each = self._rules.users, self._rules.notifications
        deadline = self._clock() + _POLL_SECONDS
        found = fresh = malformed = pages = 0
        while True:
            try:
                listed = await self._backend.undelivered(users=users, notifications=each)
            except BackendNotFoundError:
                return Poll("unsupported")
            except BackendRejectedError:
                if pages == 0:
                    raise
                break  # it does not take so wide a page
            page = await self._see_to(listed)
            pages += 1
            found = max(found, len(listed))
            fresh += page.fresh
            malformed += page.malformed
            wider = _wider(listed, users, each)
            if wider == (users, each) or self._clock() > deadline:
                break
            users, each = wider
        metrics.count("notification", "enqueued", fresh)
        metrics.count("notification", "malformed", malformed)
        if fresh or malformed:
            log.info("dispatch.enqueued", found=found, enqueued=fresh, malformed=malformed)
        return Poll("polled", found, fresh, malformed, pages)

    async def _see_to(self, listed: Sequence[Any]) -> _Page:
        read = [
            read_delivery(raw, default_title=self._rules.default_title, limits=self._rules.limits)
            for raw in listed
        ]
        notes = [item.note if isinstance(item, Malformed) else item.key.note for item in read]
        known = await self._slots.read(notes)
        room: Counter[str] = Counter()
        turns: list[tuple[int, NotificationTurn]] = []
        malformed: list[Malformed] = []
        for item, note in zip(read, known, strict=True):
            if isinstance(item, Malformed):
                if note is None:
                    malformed.append(item)
                continue
            # In order within a session: the rest of it comes when these are done.
            room[item.session] += 1
            if note is None and room[item.session] <= self._rules.in_session:
                turns.append((room[item.session], item))
        # Each session's first turn before any second one: it would wait for the first anyway.
        turns.sort(key=lambda turn: turn[0])
        await self._enqueue([turn for _, turn in turns], malformed)
        return _Page(listed, len(turns), len(malformed))

    async def _enqueue(
        self, turns: Sequence[NotificationTurn], malformed: Sequence[Malformed]
    ) -> None:
        # Enqueued first and noted then: dying in between does no harm, and loses nothing.
        await self._queue.put([*map(_turn, turns), *map(_turn, malformed)])
        notes = [item.key.note for item in turns]
        await self._slots.write(notes, "enqueued", UNDER_WAY_SECONDS, only_new=True)
        await self._slots.write([item.note for item in malformed], "failed", GIVEN_UP_SECONDS)
        for item in malformed:
            log.warning(
                "dispatch.malformed", notification_id=item.notification_id, reason=item.reason
            )


def _turn(item: NotificationTurn | Malformed) -> Job:
    return Job(SEND_TASK, item.request, DISPATCH_QUEUE, mark=item.mark)


def _wider(listed: Sequence[Any], users: int, each: int) -> tuple[int, int]:
    """What to ask for next: more of what a page was full of; the same where it was not."""
    of_user = Counter(str(item.get("user_id")) if isinstance(item, dict) else "" for item in listed)
    more_users = min(2 * users, _WIDEST) if len(of_user) >= users else users
    more_each = min(2 * each, _WIDEST) if max(of_user.values(), default=0) >= each else each
    return max(users, more_users), max(each, more_each)
