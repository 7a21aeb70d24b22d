"""The gate before one host: requests pass, or wait until the host is well again."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from types import TracebackType
from typing import Self

from clasper_worker.engine.circuit import breaker as states
from clasper_worker.engine.circuit.board import GateBoard
from clasper_worker.engine.circuit.breaker import GateState
from clasper_worker.engine.circuit.policy import GateClosedError, Outcome, Patience
from clasper_worker.engine.circuit.shared_state import SharedState
from clasper_worker.observability.events import report_waiting

_POLL_SECONDS = 0.25
_SLOW_START_POLL_SECONDS = 0.05


class Passage:
    """One request's way through a gate: ``async with``, and `report` before it is left.

    One that is left without a report tells nothing of the host: its turn was stopped.
    """

    __slots__ = ("_gate", "_patience", "outcome", "probe", "since")

    def __init__(self, gate: HostGate, patience: Patience) -> None:
        self._gate = gate
        self._patience = patience
        self.outcome = Outcome()
        self.probe = ""
        self.since = 0.0

    @property
    def who(self) -> str:
        """On whose behalf it is made."""
        return self._patience.who

    def report(self, outcome: Outcome) -> None:
        """Say what the request told of its host."""
        self.outcome = outcome

    async def __aenter__(self) -> Self:
        await self._gate.enter(self, self._patience)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._gate.leave(self)


class _Waiter:
    """One request that waits; ``released`` gets the probe's token, or an empty one."""

    __slots__ = ("for_outages", "released")

    def __init__(self, released: asyncio.Future[str], *, for_outages: bool) -> None:
        self.released = released
        self.for_outages = for_outages

    def refuse(self) -> None:
        if not self.released.done():
            self.released.set_exception(GateClosedError)


class HostGate:
    """The gate before one host, or one model of a host; used on its event loop only.

    Args:
        name: the same for all workers.
        board: the gates that it is one of.

    Attributes:
        known: its host's state, which the gates keep informed.
    """

    def __init__(self, name: str, board: GateBoard) -> None:
        self.name = name
        self.known = SharedState(name, board, self._look_again)
        self._board = board
        self._policy = board.policy
        self._in_flight = 0
        self._failures = 0
        self._failing: set[str] = set()  # on whose behalf the requests were that failed in a row
        self._last_failure = 0.0
        self._waiters: deque[_Waiter] = deque()
        self._doorkeeper: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    @property
    def state(self) -> GateState:
        """What this process knows of the host."""
        return self.known.current

    @property
    def is_blocked(self) -> bool:
        """Whether the circuit is open or the host is to be left alone."""
        return self.state.is_open or self.state.is_paused(self._board.now())

    def patience(self, who: str = "") -> Patience:
        """The configured one, for one request and its tries.

        Args:
            who: on whose behalf it is made.
        """
        return Patience(self._policy.wait, who=who)

    def is_accused_by_one(self, who: str) -> bool:
        """Whether one more failure of theirs would open the circuit, and nobody else's failed.

        It may be their own request that the host cannot take: to be asked before that is reported.
        """
        if self.state.is_open or self._failures + 1 < self._policy.failures:
            return False
        return self._failing <= {who}

    def passage(self, patience: Patience) -> Passage:
        """Pass the gate: ``async with gate.passage(patience) as passage``.

        Entering raises `GateClosedError` when the patience is over.
        """
        return Passage(self, patience)

    async def enter(self, passage: Passage, patience: Patience) -> None:
        """Pass, or wait to; use `passage`."""
        if not self._board.is_informed:
            await self._board.keep_informed()
        now = self._board.now()
        limit = self.state.limit(now, self._policy)
        if self._in_flight < limit and not self._has_waiters():
            self._in_flight += 1
            passage.since = now
            return
        until = patience.until(now)
        if now >= until:
            raise GateClosedError
        if not patience.for_outages:
            if self.state.is_open:
                await self._probe_or_refuse(passage)
                return
            if self.state.paused_until > until:
                raise GateClosedError
        self._report_wait(now, patience)
        passage.probe = await self._wait(until - now, for_outages=patience.for_outages)
        passage.since = self._board.now()

    def leave(self, passage: Passage) -> None:
        """Go out again, with what the request told; use `passage`."""
        self._in_flight -= 1
        outcome, probe = passage.outcome, passage.probe
        if outcome.failed:
            self._note_failure(passage)
        elif outcome.answered or outcome.limited:
            self._forget_failures()
            if probe:
                self.known.see(states.probe_answered(probe))
        elif probe:
            self.known.see(states.probe_abandoned(probe))
        if outcome.limited:
            self.known.see(states.pause(outcome.wait, self._policy, self._board.jitter()))
        self._look_again()

    def _note_failure(self, passage: Passage) -> None:
        if passage.probe:
            self.known.see(states.probe_failed(passage.probe, self._policy, self._board.jitter()))
            return
        if passage.outcome.others_work:
            self._forget_failures()
        if passage.outcome.alone:
            return
        now = self._board.now()
        if self.state.is_open or passage.since < self.state.recovered_at:
            return  # sent before the outage that is known of, or is over
        if now - self._last_failure > self._policy.failure_window:
            self._forget_failures()
        self._failures += 1
        self._failing.add(passage.who)
        self._last_failure = now
        if self._failures >= self._policy.failures:
            self._forget_failures()
            self.known.see(states.trip(self._policy, self._board.jitter()))

    def _forget_failures(self) -> None:
        self._failures = 0
        self._failing.clear()

    # Waiting

    def _report_wait(self, now: float, patience: Patience) -> None:
        """Report that the turn waits; for how long is known of a rate limit alone."""
        state = self.state
        if not state.is_open and state.is_paused(now):
            report_waiting("rate_limit", state.paused_until - now)
        elif state.is_open and not patience.is_reported:  # a probe that failed waits again
            patience.is_reported = True
            report_waiting("outage", None)

    async def _wait(self, seconds: float, *, for_outages: bool) -> str:
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop.create_future(), for_outages=for_outages)
        self._waiters.append(waiter)
        if self._doorkeeper is None or self._doorkeeper.done():
            self._doorkeeper = self._board.spawn(self._keep_door())
        limit = loop.call_later(seconds, waiter.refuse)
        released = waiter.released
        try:
            return await released
        except asyncio.CancelledError:
            if released.done() and not released.cancelled() and released.exception() is None:
                self._give_back(released.result())
            raise
        finally:
            limit.cancel()

    def _give_back(self, probe: str) -> None:
        passage = Passage(self, Patience(0))
        passage.probe = probe
        self.leave(passage)

    def _look_again(self) -> None:
        if self._waiters:
            self._wake.set()

    async def _keep_door(self) -> None:
        """Let waiting requests pass, first come first served, as the host's state allows."""
        try:
            while self._has_waiters():
                await self._board.refresh(_POLL_SECONDS)
                self._wake.clear()
                pause = await self._let_pass()
                if not self._has_waiters():
                    return
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            for waiter in self._waiters:  # only when the gates are closed, or by a fault of ours
                waiter.refuse()
            self._waiters.clear()

    async def _let_pass(self) -> float:
        """Let pass who may; returns the seconds after which to look again."""
        now = self._board.now()
        state = self.state
        if state.is_open:
            for waiter in self._waiters:
                if not waiter.for_outages:
                    waiter.refuse()
            if state.may_probe(now) and self._has_waiters():
                token = await self._claim_probe()
                if token and not self._release(token):
                    self.known.see(states.probe_abandoned(token))
            cooldown = state.open_until - now
            return min(_POLL_SECONDS, cooldown) if cooldown > 0 else _POLL_SECONDS
        if state.is_paused(now):
            return min(_POLL_SECONDS, state.paused_until - now)
        limit = state.limit(now, self._policy)
        while self._in_flight < limit and self._release(""):
            pass
        return _SLOW_START_POLL_SECONDS

    def _release(self, probe: str) -> bool:
        """Let the first waiting request pass; False if none waits any more."""
        if not self._has_waiters():
            return False
        self._in_flight += 1
        self._waiters.popleft().released.set_result(probe)
        return True

    def _has_waiters(self) -> bool:
        while self._waiters and self._waiters[0].released.done():
            self._waiters.popleft()
        return bool(self._waiters)

    # Probing

    async def _probe_or_refuse(self, passage: Passage) -> None:
        """For one that does not wait for outages: probe if that is due, else go elsewhere."""
        probing = self._has_waiters() or not self.state.may_probe(self._board.now())
        token = "" if probing else await self._claim_probe()
        if not token:
            raise GateClosedError
        self._in_flight += 1
        passage.probe = token
        passage.since = self._board.now()

    async def _claim_probe(self) -> str:
        """The token of a probe that is now ours; empty if it is another's."""
        token = uuid.uuid4().hex
        try:
            await asyncio.shield(self.known.see(states.claim_probe(token, self._policy)))
        except asyncio.CancelledError:
            self.known.see(states.probe_abandoned(token))
            raise
        if self.state.probe != token:
            return ""
        self._board.spawn(self._keep_claim(token))
        return token

    async def _keep_claim(self, token: str) -> None:
        while True:
            await asyncio.sleep(self._policy.probe_lease / 3)
            if self.state.probe != token:
                return
            await self.known.see(states.claim_probe(token, self._policy))
