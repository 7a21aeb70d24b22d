"""A process that has loaded Celery and the worker, and forks: ``python -m tests.chaos.nursery``.

A worker takes seconds of processor to load, and most of the matrix kills workers. Each child runs
the very command line of ``celery`` in a session, folder and environment of its own; only the
loading of modules is saved. One JSON command a line: ``{"start": …}`` answers the child's
``pid``, ``{"ended": pid}`` its exit code, or null while it runs.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import traceback
from typing import Any

LOADED = (
    "celery.bin.celery",
    "celery.bin.worker",
    "celery.apps.worker",
    "celery.backends.redis",
    "celery.events.state",
    "celery.worker.consumer",
    "kombu.transport.redis",
)


def main() -> None:
    """Serve commands until standard input ends."""
    for module in (*LOADED, *sys.argv[1:]):
        importlib.import_module(module)
    gc.freeze()
    print(json.dumps({"ready": True}), flush=True)  # noqa: T201 - the protocol
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any]
        if "start" in command:
            pid = os.fork()
            if not pid:
                _become_worker(command["start"])
            answer = {"pid": pid}
        else:
            answer = {"code": _exit_code(command["ended"])}
        print(json.dumps(answer), flush=True)  # noqa: T201 - the protocol


def _become_worker(start: dict[str, Any]) -> None:
    """Run a ``celery`` command line in this child, and end with it."""
    code = 1
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(start["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for number, source in enumerate((nothing, log, log)):
            os.dup2(source, number)
        os.environ.clear()
        os.environ.update(start["environment"])
        os.chdir(start["folder"])
        sys.argv = ["celery", *start["arguments"]]
        celery = importlib.import_module("celery.bin.celery")
        code = int(celery.main() or 0)
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:  # noqa: BLE001 - whatever ends it belongs in its log
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _exit_code(pid: int) -> int | None:
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return -1
    return os.waitstatus_to_exitcode(status) if ended else None


if __name__ == "__main__":
    main()
