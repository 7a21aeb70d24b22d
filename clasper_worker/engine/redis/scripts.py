"""Redis as our own short-lived state: scripts that many turns share round trips for, and locks.

Nothing here sets redis-py's ``socket_timeout``: on Python 3.11 that goes through
``asyncio.wait_for``, which can swallow a cancellation, so that a revoked turn would go on. Time is
bounded by ``asyncio.timeout`` around our calls instead.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio as redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from clasper_worker.config.groups import QueueGroup
from clasper_worker.engine.redis.connections import SentinelMaster
from clasper_worker.engine.redis.faults import is_read_only, redis_fault, typed_error
from clasper_worker.errors import ConfigurationError, StateUnavailableError

_LOCK_SECONDS = 5.0  # of a dead worker, others wait no longer than this
_LOCK_CONNECTIONS = 32
_LOCK_PAUSE_SECONDS = 0.02
_WAIT_SECONDS = 60.0
_CALL_SECONDS = 10.0
_ANSWER_SECONDS = 10.0  # then the connection is given up: whoever was at its other end is gone
_BATCHES_AT_ONCE = 2
_CALLS_IN_BATCH = 1000
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0

Argument = str | bytes | int | float
"""What a script can be given."""


def redis_client(url: str, settings: QueueGroup | None = None) -> redis.Redis:
    """A client whose callers wait for one of a few connections.

    Each call is short, so that few serve thousands of turns; redis-py's default pool would fail
    the hundred-and-first caller instead. Callers bound their calls by ``asyncio.timeout``.

    Args:
        url: of a server, or of Sentinels.
        settings: say what the URL of Sentinels does not; needed for such.

    Raises:
        ConfigurationError: the address is not one of Redis.
    """
    options: dict[str, Any] = {
        "max_connections": _LOCK_CONNECTIONS + _BATCHES_AT_ONCE,
        "timeout": _WAIT_SECONDS,
        "socket_timeout": None,
        "socket_connect_timeout": _CALL_SECONDS,
    }
    master = SentinelMaster.of(url, settings) if settings else None
    if master is not None:
        return redis.Redis.from_pool(master.asyncio_pool(**options))
    try:
        pool = redis.BlockingConnectionPool.from_url(url, **options)
    except ValueError as exc:
        raise ConfigurationError(
            "CLASPER_REDIS_URL is not a Redis address: set it to redis://HOST:PORT/DB",
            {"variable": "CLASPER_REDIS_URL"},
        ) from exc
    return redis.Redis.from_pool(pool)


@dataclass(frozen=True)
class StateScript:
    """A Lua script that Redis runs as one step.

    It may be run twice for one call, where a connection broke before the answer came: write it so
    that the second run does no harm.
    """

    source: str = field(repr=False)
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


@dataclass(frozen=True, slots=True)
class _Call:
    script: StateScript
    keys: Sequence[bytes] = field(repr=False)
    arguments: Sequence[bytes] = field(repr=False)
    answer: asyncio.Future[Any]

    def command(self, how: str) -> tuple[Argument, ...]:
        which = self.script.sha if how == "EVALSHA" else self.script.source
        return (how, which, len(self.keys), *self.keys, *self.arguments)


class State:
    """Runs scripts; what many turns call at one moment goes out as one round trip.

    Calls made in one iteration of the event loop, and those that come while a round trip is under
    way, leave together, over two connections of the client's pool at most. Each has its own answer
    or error, and a caller that is cancelled leaves at once and disturbs nobody.

    Args:
        client: our own state's Redis.
        seconds: how long one round trip, with reconnecting, may take.
        answer_seconds: how long one connection may stay silent; then another is made.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        seconds: float = _CALL_SECONDS,
        answer_seconds: float = _ANSWER_SECONDS,
    ) -> None:
        self._pool: Any = client.connection_pool  # whose methods carry no types
        self._seconds = seconds
        self._answer_seconds = answer_seconds
        self._waiting: list[_Call] = []
        self._senders: set[asyncio.Task[None]] = set()
        self._sending = 0  # senders that may still take a call
        self._sender_due = False  # one of them has not begun to
        self._idle: list[Any] = []  # redis-py's connections, kept from one round trip to the next

    async def call(
        self, script: StateScript, keys: Sequence[Argument], arguments: Sequence[Argument] = ()
    ) -> Any:
        """Run a script and return its answer, texts as bytes.

        Raises:
            StateUnavailableError: Redis did not answer in time, or refused.
            UnicodeEncodeError: a text is not well-formed.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        # Made bytes here: what cannot be must fail this call, and not those that leave with it.
        call = _Call(script, [*map(_encoded, keys)], [*map(_encoded, arguments)], answer)
        self._waiting.append(call)
        if not self._sender_due and self._sending < _BATCHES_AT_ONCE:
            self._sender_due = True
            self._sending += 1
            # In a context of its own: it works for others than this caller, too.
            sender = loop.create_task(self._send(), context=contextvars.Context())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        return await answer

    async def aclose(self) -> None:
        """Give the connections back; calls under way fail."""
        for sender in tuple(self._senders):
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)
        self._sending, self._sender_due = 0, False
        _fail(self._waiting, redis.ConnectionError())
        self._waiting.clear()
        while self._idle:
            await self._pool.release(self._idle.pop())

    async def _send(self) -> None:
        self._sender_due = False
        try:
            while self._waiting:
                batch = [call for call in self._waiting if not call.answer.done()]
                self._waiting = batch[_CALLS_IN_BATCH:]
                if batch:
                    await self._deliver(batch[:_CALLS_IN_BATCH])
        finally:
            self._sending -= 1

    async def _deliver(self, batch: Sequence[_Call]) -> None:
        refused: dict[int, Exception] = {}  # by the calls' places
        try:
            async with asyncio.timeout(self._seconds):
                await self._exchange(batch, refused)
        except (RedisError, OSError) as exc:  # a TimeoutError is one
            for at, refusal in refused.items():
                _settle(batch[at], refusal)  # says more than that time is up
            _fail(batch, exc)
            # Whoever waits behind would wait as long, and in vain.
            _fail(self._waiting, exc)
            self._waiting.clear()
        except BaseException as exc:
            _fail(batch, exc)
            raise

    async def _exchange(self, batch: Sequence[_Call], refused: dict[int, Exception]) -> None:
        """Make the calls, and those again that a Redis refuses which is full or a replica now."""
        deadline = time.monotonic() + self._seconds
        pause = _FIRST_PAUSE_SECONDS
        places = list(range(len(batch)))
        while True:
            answers = await self._answers([batch[at] for at in places])
            refused.clear()
            for at, answer in zip(places, answers, strict=True):
                if isinstance(answer, Exception) and _passes(answer):
                    refused[at] = answer
                else:
                    _settle(batch[at], answer)
            if time.monotonic() + pause >= deadline:
                for at, refusal in refused.items():
                    _settle(batch[at], refusal)
            places = [at for at in refused if not batch[at].answer.done()]
            if not places:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _answers(self, batch: Sequence[_Call]) -> list[Any]:
        answers = await self._commands(batch, "EVALSHA")
        # Redis was restarted, or never saw the script. EVAL makes it known as well.
        unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            again = await self._commands([batch[at] for at in unknown], "EVAL")
            for at, answer in zip(unknown, again, strict=True):
                answers[at] = answer
        return answers

    async def _commands(self, batch: Sequence[_Call], how: str) -> list[Any]:
        """One round trip, again after a pause where the connection broke, until time is up."""
        commands = [call.command(how) for call in batch]
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                async with asyncio.timeout(self._answer_seconds):
                    return await self._on_a_connection(commands)
            except redis.AuthenticationError:
                raise  # a kind of ConnectionError, and a pause will not fix it
            except (redis.ConnectionError, redis.InvalidResponse, OSError):  # TimeoutError is one
                await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _on_a_connection(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        connection = self._idle.pop() if self._idle else await self._pool.get_connection()
        try:
            return await _round_trip(connection, commands)
        finally:
            self._idle.append(connection)


def _encoded(value: Argument) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


async def _round_trip(connection: Any, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
    """Send commands and read their answers, a refused command's error as its answer."""
    try:
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        answers: list[Any] = []
        for _ in commands:
            try:
                answers.append(await connection.read_response(disable_decoding=True))
            except ResponseError as exc:
                answers.append(exc)
        if any(isinstance(answer, ResponseError) and is_read_only(answer) for answer in answers):
            # It is a replica now: its name may lead to another server by the next round trip.
            await connection.disconnect(nowait=True)
    except BaseException:
        # Answers that nobody reads would be taken for the next caller's.
        await connection.disconnect(nowait=True)
        raise
    return answers


def _passes(refusal: Exception) -> bool:
    """Whether the same call may be taken later: Redis is full, busy, or a replica, say."""
    kind = redis_fault(refusal)
    return kind is not None and kind.passes


def _settle(call: _Call, answer: Any) -> None:
    if call.answer.done():
        return  # the caller was cancelled
    if isinstance(answer, Exception):
        call.answer.set_exception(typed_error(answer))
    else:
        call.answer.set_result(answer)


def _fail(batch: Sequence[_Call], exc: BaseException) -> None:
    for call in batch:
        if not call.answer.done():
            error = typed_error(exc)
            error.__cause__ = exc
            call.answer.set_exception(error)


def redis_lock(
    client: redis.Redis, *, seconds: float = _LOCK_SECONDS, patience: float | None = None
) -> Callable[[str], AbstractAsyncContextManager[object]]:
    """Named locks shared by all workers, each held for ``seconds`` at most.

    Whoever holds one may be waiting for a backend that is down, so that the others are to wait for
    as long as it: for ``patience`` seconds, else twice the time that the lock is held at most.
    With ``patience`` an absence of Redis is waited out as well. Entering raises
    `StateUnavailableError` where Redis does not answer or the lock stays taken.
    """
    wait = seconds * 2 if patience is None else patience

    @asynccontextmanager
    async def lock(name: str) -> AsyncIterator[object]:
        held = client.lock(f"clasper:lock:{name}", timeout=seconds)
        taken = await _take(held, wait, is_patient=patience is not None)
        if not taken:
            raise StateUnavailableError(f"The lock {name} stayed taken", {"lock": name})
        try:
            yield held
        finally:
            try:
                async with asyncio.timeout(_CALL_SECONDS):
                    await held.release()
            except (RedisError, OSError):  # a LockError is one: it ran out while held
                pass  # it runs out by itself; the idempotency key still keeps the task single

    return lock


async def _take(lock: Any, wait: float, *, is_patient: bool) -> bool:
    """Take a lock as soon as it is free; False if it stays taken.

    Each attempt is bounded by itself: one that got no answer is made again, connected anew.
    """
    deadline = time.monotonic() + wait
    while True:
        pause = _LOCK_PAUSE_SECONDS
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                if await lock.acquire(blocking=False):
                    return True
        except (RedisError, OSError) as exc:  # a TimeoutError is one
            kind = redis_fault(exc)
            if not is_patient or kind is None or not kind.passes or time.monotonic() > deadline:
                raise typed_error(exc) from exc
            pause = _LONGEST_PAUSE_SECONDS
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(pause)
