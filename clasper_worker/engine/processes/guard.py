"""A process that ends ours when we cannot: nothing is left behind after ``kill -9``.

One guard holds the read end of a pipe whose write end only its owner has. The owner names each
process group it starts and each that has ended. When the pipe closes, the owner is gone, however
it went, and the guard kills the groups that are left. Unlike Linux's ``PR_SET_PDEATHSIG`` this
works on macOS too, reaches grandchildren (a prefork pool), and needs neither a ``preexec_fn`` nor
a wrapper around every command.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import IO, Self, cast


class Guard:
    """The owner's end of the pipe to a guard process.

    Every group named by :meth:`watch` and not taken back by :meth:`forget` is killed when this
    process ends or :meth:`close` is called.
    """

    def __init__(self) -> None:
        # By path and isolated: it starts in milliseconds and imports nothing of ours.
        self._process = subprocess.Popen(  # noqa: S603 - our own file, no shell
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )
        self._pipe = cast("IO[bytes]", self._process.stdin)

    def watch(self, group: int) -> None:
        """Kill this process group when we are gone."""
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """This process group has ended; its number may belong to another soon."""
        self._tell(f"-{group}\n")

    def close(self) -> None:
        """Kill what is still watched, and end the guard."""
        self._pipe.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _tell(self, line: str) -> None:
        if self._pipe.closed:
            return
        # A guard that somebody killed is a lost safety net, not a reason to stop working.
        with contextlib.suppress(BrokenPipeError):
            self._pipe.write(line.encode())


def main() -> None:
    """Run the guard: read group numbers until the pipe closes, then kill those that are left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
