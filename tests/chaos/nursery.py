"""A process that has loaded Celery and the worker, and forks: ``python -m tests.chaos.nursery``.

A worker takes seconds of processor to load, and most of the matrix, and many a test, starts
workers. Each child is a ``python -m MODULE ARGUMENTS`` in a session, folder and environment of its
own, from its first line to the interpreter's end; only the loading of modules is saved. One JSON
command a line: ``{"start": …}`` answers the child's ``pid``, ``{"ended": pid}`` its exit code, or
null while it runs.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import sys
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
                _become(command["start"])
                return
            answer = {"pid": pid}
        else:
            answer = {"code": _exit_code(command["ended"])}
        print(json.dumps(answer), flush=True)  # noqa: T201 - the protocol


def _become(start: dict[str, Any]) -> None:
    """Run a module's command line in this child, which ends as it returns or exits."""
    os.setsid()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, source in enumerate(
        (nothing, os.open(start["output"], flags, 0o644), os.open(start["errors"], flags, 0o644))
    ):
        os.dup2(source, number)
        os.close(source)
    os.environ.clear()
    os.environ.update(start["environment"])
    os.chdir(start["folder"])
    path = os.environ.get("PYTHONPATH", "")
    sys.path[:0] = [start["folder"], *filter(None, path.split(os.pathsep))]
    sys.argv = [start["module"], *start["arguments"]]
    runpy.run_module(start["module"], run_name="__main__", alter_sys=True)


def _exit_code(pid: int) -> int | None:
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return -1
    return os.waitstatus_to_exitcode(status) if ended else None


if __name__ == "__main__":
    main()
