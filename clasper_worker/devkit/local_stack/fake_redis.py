"""fakeredis' TCP server as a process of its own.

``python -m clasper_worker.devkit.local_stack.fake_redis PORT``
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from types import FrameType

from fakeredis import FakeRedis, FakeServer, TcpFakeServer

from clasper_worker.devkit.local_stack.ports import LOOPBACK


def complete_scripting(server: FakeServer) -> None:
    """Give scripts ``redis.sha1hex``, which Redis has and fakeredis lacks; ours need it."""
    with FakeRedis(server=server) as client:
        client.eval("return 1", 0)  # makes the server's Lua
    library = server._lua_runtime.globals()[b"redis"]  # noqa: SLF001 - there is no public way
    library[b"sha1hex"] = lambda text: hashlib.sha1(text).hexdigest().encode()  # noqa: S324 - Redis' name for it


def main() -> None:
    """Serve until SIGTERM; everything is in memory and gone afterwards."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        os._exit(0)  # its handler threads wait for their clients, and there is nothing to save

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server = TcpFakeServer((LOOPBACK, int(sys.argv[1])), server_type="redis")
    complete_scripting(server.fake_server)
    server.serve_forever()


if __name__ == "__main__":
    main()
