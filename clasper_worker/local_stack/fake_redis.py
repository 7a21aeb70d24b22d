"""fakeredis' TCP server as a process: ``python -m clasper_worker.local_stack.fake_redis PORT``."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from fakeredis import TcpFakeServer

from clasper_worker.local_stack.ports import LOOPBACK


def main() -> None:
    """Serve until SIGTERM; everything is in memory and gone afterwards."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        os._exit(0)  # its handler threads wait for their clients, and there is nothing to save

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    TcpFakeServer((LOOPBACK, int(sys.argv[1])), server_type="redis").serve_forever()


if __name__ == "__main__":
    main()
