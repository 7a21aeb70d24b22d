"""Celery's Redis result backend, storing states in one step instead of two, and many at a time.

Celery reads the stored state first, so that nothing overwrites SUCCESS, and writes afterwards. Two
writers (a retry and its next attempt, a redelivery and a revocation) can both read before either
writes; and each state costs two exchanges with Redis. Here a script on the server does both, and
one exchange can carry many. What is stored, under which keys, and what is published to waiting
clients is unchanged.

An outcome is not lost because Redis refuses it for a while, or does not answer: storing it waits,
and in a worker's task for minutes. Then the task's message goes back to its queue, and its next
run, which repeats nothing that was journaled, stores the same outcome.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from celery import states
from celery._state import get_current_worker_task
from celery.backends.redis import RedisBackend, SentinelBackend
from celery.exceptions import BackendStoreError, Reject
from redis.commands.core import Script
from redis.exceptions import NoScriptError

from clasper_worker.engine.pool.traced_call import settling
from clasper_worker.engine.redis.faults import RedisFault, is_read_only, redis_fault, typed_error

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 120.0
"""How long storing the outcome of a task waits for Redis."""

_OTHERS_SECONDS = 20.0  # whoever else stores a state: the consumer's thread, a command
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_VARIABLE = "CELERY_RESULT_BACKEND"

# KEYS[1]: the task's key. ARGV[1]: its new state as JSON. ARGV[2]: seconds to keep it, 0 for ever.
# ARGV[3]: for STARTED the time of the start, else empty: an end that was stored after it stays.
_STORE = """
local stored = redis.call('GET', KEYS[1])
if stored then
  local readable, meta = pcall(cjson.decode, stored)
  if readable and type(meta) == 'table' then
    if meta['status'] == 'SUCCESS' then return 0 end
    local ended = meta['date_done']
    if ARGV[3] ~= '' and type(ended) == 'string' and ended >= ARGV[3] then return 0 end
  end
end
local seconds = tonumber(ARGV[2])
if seconds > 0 then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', seconds)
else
  redis.call('SET', KEYS[1], ARGV[1])
end
redis.call('PUBLISH', KEYS[1], ARGV[1])
return 1
"""


class StateWrite(NamedTuple):
    """A state that is ready to be sent to Redis.

    Attributes:
        key: the task's key.
        value: the state as JSON.
        expires: seconds to keep it; 0 for ever.
        since: ISO time of the start that it announces; an end that was stored later is kept.
            Empty for all other states, which only SUCCESS withstands.
    """

    key: bytes | str
    value: str
    expires: int
    since: str = ""

    def __repr__(self) -> str:
        return f"StateWrite(key={self.key!r}, value=<{len(self.value)} characters>)"


class AtomicRedisBackend(RedisBackend):
    """Stores results as ``RedisBackend`` does, but reads and writes in one step.

    Attributes:
        patience: seconds that storing the outcome of a task waits for Redis.
    """

    patience = PATIENCE_SECONDS

    _registered: Script | None = None

    @property
    def is_atomic(self) -> bool:
        """Whether it does, with the serializer it has: the script reads JSON only."""
        return self.serializer == "json" and not self.compression

    def prepare(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        *,
        since: str = "",
    ) -> StateWrite:
        """Encode a state for :meth:`write`; for ``since`` see :class:`StateWrite`.

        Raises:
            BackendStoreError: it is too large for Redis.
            kombu.exceptions.EncodeError: it cannot be encoded.
        """
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        meta["task_id"] = str(task_id)
        value = self.encode(meta)
        if len(value) > self._MAX_STR_VALUE_SIZE:
            raise BackendStoreError(
                "value too large for Redis backend", state=state, task_id=task_id
            )
        expires = self.failure_expires if state == states.FAILURE else self.expires
        return StateWrite(self.get_key_for_task(task_id), value, int(expires or 0), since)

    def write(self, writes: Sequence[StateWrite]) -> list[Exception | None]:
        """Send states to Redis together, without trying again where it cannot be reached.

        Returns:
            What Redis refused, and None for each state that it took, in their order.

        Raises:
            redis.exceptions.RedisError: Redis did not answer; each may be stored or not.
        """
        answers = self._send(writes)
        unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:  # Redis has been started anew, or has been told to forget
            self.client.script_load(self._script.script)
            for at, answer in zip(unknown, self._send([writes[at] for at in unknown]), strict=True):
                answers[at] = answer
        refusals = [answer if isinstance(answer, Exception) else None for answer in answers]
        if any(refusal is not None and is_read_only(refusal) for refusal in refusals):
            self._find_master()
        return refusals

    def ensure(self, fun: Callable[..., Any], args: Any, **policy: Any) -> Any:
        """Call Redis, again and again while it refuses or does not answer.

        Raises:
            StateUnavailableError: it did so for too long; or it never will take the call.
            Reject: the same in a worker's task, whose message then goes back to its queue.
        """
        is_task = get_current_worker_task() is not None
        retries = policy.get("max_retries", self.retry_policy["max_retries"])
        others = _OTHERS_SECONDS if retries is None else min(_OTHERS_SECONDS, float(retries))
        deadline = time.monotonic() + (self.patience if is_task else others)
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return fun(*args)
            except Exception as exc:
                kind = redis_fault(exc)
                if kind is None:
                    raise
                error = typed_error(exc, _VARIABLE)
                # What an operator can grant meanwhile is worth waiting for, with a paid reply.
                if not kind.passes and not (is_task and kind is RedisFault.DENIED):
                    raise error from exc
                if time.monotonic() + pause > deadline:
                    raise (Reject(error, requeue=True) if is_task else error) from exc
                if is_read_only(exc):
                    self._find_master()
            if pause == _FIRST_PAUSE_SECONDS:
                logger.warning("%s; waiting to store a result", error)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _find_master(self) -> None:
        """Connect anew: the name of a server that is a replica now may lead to another one."""
        self.client.connection_pool.disconnect(inuse_connections=False)

    def _send(self, writes: Sequence[StateWrite]) -> list[Any]:
        with self.client.pipeline(transaction=False) as pipe:
            for key, value, expires, since in writes:
                pipe.execute_command("EVALSHA", self._script.sha, 1, key, value, expires, since)
            answers: list[Any] = pipe.execute(raise_on_error=False)
        return answers

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        if not self.is_atomic:
            return super()._store_result(
                task_id, result, state, traceback, request=request, **kwargs
            )
        call = settling.call
        if call is None or not call.has_stored(task_id, state):
            write = self.prepare(task_id, result, state, traceback, request)
            self.ensure(self._write_one, write)
        return result

    def _write_one(self, key: bytes | str, value: str, expires: int, since: str) -> None:
        self._script(keys=[key], args=[value, expires, since])

    @property
    def _script(self) -> Script:
        # Not a cached property: until Python 3.12 that has one lock for all objects, and a child
        # that is forked while a thread of its parent's holds it could store nothing ever.
        if self._registered is None:
            self._registered = self.client.register_script(_STORE)
        return self._registered


class AtomicSentinelBackend(AtomicRedisBackend, SentinelBackend):
    """The same in a Redis behind Sentinels."""
