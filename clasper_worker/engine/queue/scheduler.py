"""The scheduler of turns in the broker's Redis (``lua/*.lua``), as Python calls it.

Every method is one script call, which Redis carries out whole or not at all: a worker that dies
between two of them has either taken a message, with a lease, or not touched it. The script's parts:

- ``base``: keys and figures; ``base64``, ``reading``: whose a message is, and which session's;
- ``intake``: session order and busy policies; ``ready``: users in turn, and their caps;
- ``lease``: what runs next; ``ending``: settled, released; ``lapsed``: leases of lost workers;
- ``cancelling``, ``dead_letters``; ``operations``: what Python may ask for.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

import redis
from redis.exceptions import RedisError

from clasper_worker.config.groups import QueueGroup
from clasper_worker.config.values import SENTINEL_SCHEME
from clasper_worker.engine.queue.identifiers import BLANK
from clasper_worker.engine.queue.kept_apart import take_apart
from clasper_worker.engine.queue.letter_reasons import code_of
from clasper_worker.engine.queue.policy import ScheduleRules
from clasper_worker.engine.queue.scheduler_types import Burial, Exchanged, Renewal, burials_of
from clasper_worker.engine.redis.connections import blocking_client
from clasper_worker.engine.redis.faults import is_read_only, typed_redis_errors
from clasper_worker.observability.metrics import (
    count_dead_letter,
    count_losses,
    count_redelivery,
)

Withdrawal = Literal["withdrawn", "leaving", "running", "unknown"]
Replay = Literal["replayed", "unknown", "unreadable", "webhook_gone"]
SCHEDULED = ("redis://", "rediss://", SENTINEL_SCHEME)
"""The brokers that the scheduler works in, by their URLs' schemes."""
_REAPED_AT_ONCE = 500
_ANSWER_SECONDS = 10.0
_CONNECT_SECONDS = 3.0


class Schedule:
    """The script, with the rules of this worker.

    Args:
        client: a connection to the broker's Redis that returns bytes.
        rules: what all workers agree on.
        queues: see `ScheduleRules.as_json`.
    """

    def __init__(
        self,
        client: redis.Redis,
        rules: ScheduleRules,
        queues: Sequence[tuple[str, Sequence[str]]] = (),
    ) -> None:
        self.client: Any = client  # redis-py types each answer as bytes or text
        self._rules = rules.as_json(queues)
        # Made here, not when first needed: until Python 3.12 a cached property has one lock for all
        # objects, and a process that forks while another thread holds it leaves it locked for ever.
        self._script: Any = self.client.register_script(script_text())
        self._name = uuid.uuid4().hex  # of the worker that takes messages through this

    def exchange(
        self,
        *,
        settled: Iterable[str] = (),
        released: Iterable[str] = (),
        lost: Iterable[str] = (),
        free: int,
        intake: int = 200,
    ) -> Exchanged:
        """Give back what is done, and take what may run: a whole turn of a worker's loop.

        Args:
            settled: tokens of messages that are done for good.
            released: tokens of messages that another worker is to run, first of their session.
            lost: the same, of which the process that ran them was lost: as a lapsed lease, it is
                blamed on the message, which becomes a dead letter after several.
            free: how many messages to take at most.
            intake: how many messages to move from the queues into lanes at most.
        """
        given = list(lost)
        found = self._call(
            op="exchange",
            worker=self._name,
            settled=list(settled),
            released=list(released),
            lost=given,
            free=free,
            intake=intake,
        )
        exchanged = Exchanged.of(found)
        count_losses("process_lost", len(given))
        _count_letters(exchanged.put)
        for delivery in exchanged.deliveries:
            if delivery.is_redelivered:
                count_redelivery(delivery.queue)
        return exchanged

    def refresh(self, tokens: Iterable[str]) -> tuple[str, ...]:
        """Prolong these deliveries' leases; returns those that are not the caller's any more."""
        return self.renew(tokens).lost

    def renew(self, tokens: Iterable[str]) -> Renewal:
        """Prolong these deliveries' leases, and hear what became of them."""
        lost, cancelled = self._call(op="refresh", tokens=list(tokens))
        return Renewal(
            tuple(token.decode() for token in lost), tuple(job.decode() for job in cancelled)
        )

    def reap(self) -> tuple[int, tuple[Burial, ...]]:
        """Make ready again whose lease has lapsed, or bury it.

        Returns:
            How many lapsed, and all dead letters whose callers nobody has been said to have told.
        """
        lapsed, buried, letters, put = self._call(
            op="reap", worker=self._name, limit=_REAPED_AT_ONCE
        )
        count_losses("lease_lapsed", int(lapsed))
        _count_letters(reason.decode() for reason in put)
        self.keep_apart(letter.decode() for letter in letters)
        return int(lapsed), burials_of(buried)

    def keep_apart(self, letter_ids: Iterable[str]) -> None:
        """Keep the webhooks of these dead letters apart from them, for a delivery's life."""
        for letter_id in letter_ids:
            raw = self.client.hget(f"clasper:dead:{letter_id}", "raw")
            taken = take_apart(raw) if raw else None
            if taken is None:
                self._call(op="keep_apart", letter=letter_id, webhook="")
            else:
                self._call(taken[0], op="keep_apart", letter=letter_id, webhook=taken[1])

    def is_untold(self, burial: Burial) -> bool:
        """Whether the caller is still to be told: nobody has, and the letter was not replayed."""
        return bool(self._call(op="is_untold", letter=_letter(burial)))

    def told(self, burials: Iterable[Burial]) -> None:
        """Note that the callers of these know: `reap` names them no more."""
        letters = [_letter(burial) for burial in burials]
        if letters:
            self._call(op="told", letters=letters)

    def withdraw(self, job_id: str) -> Withdrawal:
        """Withdraw a job that has not been delivered; see `withdraw_all`, which here remembers."""
        return self.withdraw_all([job_id], remember=True)[job_id]

    def withdraw_all(self, job_ids: Iterable[str], *, remember: bool) -> dict[str, Withdrawal]:
        """See to it that those of the jobs that were not delivered do not run; what each was.

        They leave their lanes at once. A worker gets the message with the verdict ``cancelled``,
        announces it as revoked and reports it, so that no caller waits for ever for one that its
        canceller did not live to tell of. One that has been withdrawn and not yet got so is
        ``leaving``.

        Args:
            job_ids: ids of jobs, or of turns that are not known yet.
            remember: of a job that runs or is unknown, that it is not to run again or at all. What
                comes nevertheless is delivered with the verdict ``cancelled``.
        """
        jobs = list(job_ids)
        found = self._call(op="withdraw", jobs=jobs, remember=remember)
        return {job: word.decode() for job, word in zip(jobs, found, strict=True)}

    def admit(self, queue: str, key: str, raw: bytes) -> bool:
        """Take one message in from its queue's list; False if it is not there any more."""
        return bool(self._call(raw, op="admit", queue=queue, key=key))

    def recall(self, names: Iterable[str]) -> None:
        """Remember of these jobs and turns no longer that they are cancelled."""
        self._call(op="recall", names=list(names))

    def jobs_of(self, turn_id: str) -> frozenset[str]:
        """The jobs of a turn that are known; the one whose id is the turn's only while it lives."""
        with self.client.pipeline(transaction=False) as pipe:
            pipe.smembers(f"clasper:turn-jobs:{turn_id}")
            pipe.hexists("clasper:jobs", turn_id)
            members, is_job = pipe.execute()
        jobs = frozenset(job.decode() for job in members)
        return jobs | {turn_id} if is_job else jobs

    def bury(self, token: str, reason: str) -> tuple[Burial, ...]:
        """Make a delivered message, and those it had collected, dead letters.

        Returns what was buried: nothing if the delivery is not the caller's any more.
        """
        buried = burials_of(self._call(op="bury", token=token, reason=reason))
        _count_letters(burial.reason for burial in buried)
        return buried

    def part(self, token: str, job_ids: Iterable[str]) -> int:
        """Have these jobs, collected by a delivery of the caller's, wait behind it again.

        Returns how many did.
        """
        return int(self._call(op="part", token=token, jobs=list(job_ids)))

    def members(self, token: str) -> frozenset[str]:
        """The jobs that a delivery of the caller's has collected and that are to end with it."""
        return frozenset(job.decode() for job in self._call(op="members", token=token))

    def doom(self, token: str, reason: str) -> bool:
        """Have settling this delivery make it a dead letter; False if it is not the caller's.

        So the failure is stored first. If the worker dies before it has settled the delivery, the
        message is delivered again, as any other, and may do better.
        """
        return bool(self._call(op="doom", token=token, reason=reason))

    def replay(self, letter_id: str, instead: str = "") -> Replay:
        """Put a dead letter's message back in its queue, and drop the letter.

        Args:
            letter_id: the letter's.
            instead: the message as it is to be queued; as it lay there when omitted.
        """
        answer: Replay = self._call(op="replay", letter=letter_id, instead=instead).decode()
        return answer

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def _call(self, *raw: bytes, **ask: Any) -> Any:
        try:
            return self._script(args=[json.dumps(ask), self._rules, *raw])
        except RedisError as exc:
            if is_read_only(exc):  # the next call may find another server by the same name
                self.client.connection_pool.disconnect(inuse_connections=False)
            raise


def open_schedule(settings: QueueGroup) -> Schedule | None:
    """The schedule for whoever does not consume; None where the broker is not Redis.

    It connects when it is first used. Safe for several threads.
    """
    url = settings.celery_broker_url
    if not url.startswith(SCHEDULED):
        return None
    client = blocking_client(
        url, settings, socket_timeout=_ANSWER_SECONDS, socket_connect_timeout=_CONNECT_SECONDS
    )
    return Schedule(client, ScheduleRules.from_settings(settings))


def redis_answers() -> AbstractContextManager[None]:
    """Translate what Redis, for the broker or for results, raises when it does not answer.

    Raises:
        StateUnavailableError: it did not, or refused.
    """
    return typed_redis_errors("CELERY_BROKER_URL and CELERY_RESULT_BACKEND")


def _count_letters(reasons: Iterable[str]) -> None:
    for reason in reasons:
        count_dead_letter(code_of(reason))


def _letter(burial: Burial) -> list[str]:
    return [burial.letter_id, burial.job_id, burial.reason]


# Each uses functions of those before it: to Redis, and to Lua, they are one text.
_PARTS = (
    "base",
    "base64",
    "reading",
    "dead_letters",
    "ready",
    "intake",
    "lease",
    "ending",
    "lapsed",
    "cancelling",
    "operations",
)


@lru_cache(maxsize=1)
def script_text() -> str:
    """The whole script."""
    folder = files("clasper_worker.engine.queue").joinpath("lua")
    blank = ", ".join(str(point) for bounds in BLANK for point in bounds)
    parts = (folder.joinpath(f"{part}.lua").read_text("utf-8") for part in _PARTS)
    return "\n".join((f"local BLANK = {{ {blank} }}", *parts))
