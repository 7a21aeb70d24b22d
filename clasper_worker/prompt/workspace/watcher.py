"""The thread that watches workspaces for changes: one a process, for all of them."""

from __future__ import annotations

import os
import threading
from functools import lru_cache
from typing import Protocol

import structlog

LOOK_INTERVAL_SEC = 1.0
"""Between two looks at an unchanged workspace."""

SETTLE_INTERVAL_SEC = 0.25
"""Between two looks at one that is being changed: a change is taken when two looks agree."""

_log = structlog.get_logger(__name__)


class Watched(Protocol):
    """What the watcher looks at."""

    def look(self) -> bool:
        """Look once; True where a change was seen that has not settled yet."""


class Watcher:
    """Calls ``look`` on each of its targets about once a second, in one background thread.

    The thread starts with the first target and ends with the last. Any thread may call `add` and
    `remove`.

    Args:
        interval: seconds between looks.
        settle: seconds between looks while a target has an unsettled change.
    """

    def __init__(
        self, interval: float = LOOK_INTERVAL_SEC, settle: float = SETTLE_INTERVAL_SEC
    ) -> None:
        self._interval = interval
        self._settle = settle
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._targets: tuple[Watched, ...] = ()

    def add(self, target: Watched) -> None:
        """Look at ``target`` from now on."""
        with self._lock:
            self._targets = (*self._targets, target)
            self._ensure_thread()

    def remove(self, target: Watched) -> None:
        """Look at ``target`` no more. A look that is under way may still end after this."""
        with self._lock:
            self._targets = tuple(item for item in self._targets if item is not target)
            if not self._targets:
                self._stop.set()
                self._thread = None

    def restart_in_child(self) -> None:
        """After a fork: threads stayed with the parent, so start anew if there are targets."""
        self._lock = threading.Lock()
        self._thread = None
        if self._targets:
            self._ensure_thread()

    def _ensure_thread(self) -> None:
        if self._thread is None:
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(self._stop,), name="clasper-workspace-watcher", daemon=True
            )
            self._thread.start()

    def _run(self, stop: threading.Event) -> None:
        unsettled = False
        while not stop.wait(self._settle if unsettled else self._interval):
            looks = [_look(target) for target in self._targets]
            unsettled = any(looks)


def _look(target: Watched) -> bool:
    try:
        return target.look()
    except Exception:  # noqa: BLE001 - a defect must not end the watching of every workspace
        _log.exception("workspace_look_failed")
        return False


@lru_cache(maxsize=1)
def process_watcher() -> Watcher:
    """This process's watcher, made at the first call; it survives a fork."""
    watcher = Watcher()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=watcher.restart_in_child)
    return watcher
