"""kombu's event loop for the consumer's thread, in which no callback is lost by another's error.

What is to be done soon lies in a set, the acknowledgements of turns that have ended among it. kombu
runs through it, and the first callback that raises takes with it all that were behind: the turns
stay delivered for ever. Here the others run first, and the error is raised after them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from kombu.asynchronous import Hub

logger = logging.getLogger(__name__)

Callback = Callable[[], object]


class SteadyHub(Hub):
    """A hub that runs every callback of `call_soon`, whatever others raise."""

    _is_closing = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Re-entrant, which kombu's is not: the handler of a shutdown's signal, which settles what
        # runs, may interrupt its own thread here, and would wait for itself for ever.
        self._ready_lock = threading.RLock()

    def _pop_ready(self) -> _Ready:
        return _Ready(self, super()._pop_ready())

    def _close(self) -> None:
        self._is_closing = True
        try:
            super()._close()
        finally:
            self._is_closing = False

    def _run_all(self, callbacks: set[Callback]) -> None:
        """Run them all, then raise the first error; when the hub is being closed, log it."""
        first: Exception | None = None
        while callbacks:
            callback = callbacks.pop()
            try:
                callback()
            except Exception as exc:  # noqa: BLE001 - the others are to run
                if first is None and not self._is_closing:
                    first = exc
                else:
                    logger.warning("a callback failed: %s", type(exc).__name__)
            except BaseException:  # the worker is to end, and settles first what is left
                with self._ready_lock:
                    self._ready |= callbacks
                raise
        if first is not None:
            raise first


class _Ready(set[Callback]):
    """What is to be done soon. Whoever iterates over it to call it calls all of it, in one."""

    def __init__(self, hub: SteadyHub, callbacks: set[Callback]) -> None:
        super().__init__(callbacks)
        self._hub = hub

    def __iter__(self) -> Iterator[Any]:
        if self:
            yield lambda: self._hub._run_all(self)  # noqa: SLF001 - the two are one mechanism
