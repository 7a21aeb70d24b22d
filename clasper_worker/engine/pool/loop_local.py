"""Things that belong to one event loop: made lazily inside it, closed with it.

HTTP clients, Redis clients and locks of asyncio are bound to the loop that first used them. A
:class:`LoopLocal` keeps one per loop, whichever pool, command or test the loop belongs to.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakSet

logger = logging.getLogger(__name__)

T = TypeVar("T")
CloseHook = Callable[[], Awaitable[object]]

_close_hooks: WeakKeyDictionary[asyncio.AbstractEventLoop, list[CloseHook]] = WeakKeyDictionary()


def on_loop_close(hook: CloseHook) -> None:
    """Have ``await hook()`` run when the running event loop is closed; last in, first out.

    The loops of the worker pools run their hooks at shutdown, after the last turn has ended. A
    program with a loop of its own ends it with :func:`close_resources`.

    Raises:
        RuntimeError: no event loop runs in this thread.
    """
    _close_hooks.setdefault(asyncio.get_running_loop(), []).append(hook)


async def close_resources(timeout: float = 5.0) -> None:  # noqa: ASYNC109  # one budget for all
    """Run the running loop's close hooks, newest first; one that fails does not stop the others.

    Args:
        timeout: seconds for all of them together; what is left then is not run.
    """
    hooks = _close_hooks.pop(asyncio.get_running_loop(), [])
    try:
        async with asyncio.timeout(timeout):
            while hooks:
                await _run_hook(hooks.pop())
    except TimeoutError:
        logger.warning("closing the loop's resources took too long; %d left open", len(hooks))


async def _run_hook(hook: CloseHook) -> None:
    try:
        await hook()
    except Exception:  # a resource that fails to close must not keep the others open
        logger.exception("closing a resource failed")


class LoopLocal(Generic[T]):
    """One ``T`` for each event loop, made when the loop first asks for it.

    Callers that ask at the same time share one making of it; a making that fails is not kept, so
    the next caller tries again.

    Args:
        factory: makes the value, inside the loop.
        close: closes it, inside the same loop, when the loop is closed.

    Example:
        >>> clients = LoopLocal(make_client, close=Client.aclose)
        >>> client = await clients.get()
    """

    def __init__(
        self,
        factory: Callable[[], Awaitable[T]],
        close: Callable[[T], Awaitable[object]] | None = None,
    ) -> None:
        self._factory = factory
        self._close = close
        self._values: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[T]] = (
            WeakKeyDictionary()
        )
        _loop_locals.add(self)

    async def get(self) -> T:
        """The running loop's value.

        Raises:
            Exception: whatever the factory raised.
        """
        loop = asyncio.get_running_loop()
        making = self._values.get(loop)
        if making is None:
            # A task of its own, so that the caller's cancellation does not undo it for others.
            making = self._values[loop] = loop.create_task(self._make(loop))
        return await asyncio.shield(making)

    def forget(self) -> None:
        """Drop the values of all loops without closing them: they are another process's."""
        self._values = WeakKeyDictionary()

    async def _make(self, loop: asyncio.AbstractEventLoop) -> T:
        try:
            value = await self._factory()
        except BaseException:
            self._values.pop(loop, None)
            raise
        on_loop_close(lambda: self._dispose(loop, value))
        return value

    async def _dispose(self, loop: asyncio.AbstractEventLoop, value: T) -> None:
        self._values.pop(loop, None)
        if self._close is not None:
            await self._close(value)


_loop_locals: WeakSet[LoopLocal[Any]] = WeakSet()


def _forget_all() -> None:
    """In a forked child: its parent's loops do not run here, and their connections are shared."""
    _close_hooks.clear()
    for one in list(_loop_locals):
        one.forget()


os.register_at_fork(after_in_child=_forget_all)
