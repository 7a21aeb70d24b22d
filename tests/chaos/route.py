"""A way to a server that can be lost without a word, as when a machine or a network vanishes."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress


class Route:
    """A way to a server that can be lost: what was connected by then hears nothing any more."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._open: list[socket.socket] = [self._listener]
        self._lost: set[socket.socket] = set()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def lose(self) -> None:
        """From now on what is connected sends and hears nothing, and is not closed."""
        self._lost.update(self._open[1:])

    def close(self) -> None:
        self._ends.set()
        self._thread.join()
        for one in self._open:
            one.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._ends.is_set():
            for key, _ in self._selector.select(0.05):
                if key.fileobj is self._listener:
                    self._connect()
                else:
                    self._pass_on(key.fileobj, key.data)  # type: ignore[arg-type]

    def _connect(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._server)
        self._open += [client, server]
        self._selector.register(client, selectors.EVENT_READ, server)
        self._selector.register(server, selectors.EVENT_READ, client)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            data = source.recv(65536)
            if data and source not in self._lost:
                sink.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(source)
            if source not in self._lost:
                with suppress(OSError):
                    sink.shutdown(socket.SHUT_WR)
