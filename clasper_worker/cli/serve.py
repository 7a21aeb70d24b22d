"""``clasper serve``: the HTTP shim."""

from __future__ import annotations

import contextlib
import socket
import sys

import click

from clasper_worker.config.settings import load_settings
from clasper_worker.engine.http.listening import listen_on
from clasper_worker.observability.logs import configure_logging
from clasper_worker.startup_checks import refuse_contradictions

_STOP_SECONDS = 10  # for requests in flight when it is asked to stop


@click.command(name="serve", epilog="Example: clasper serve --port 8081")
@click.option("--host", help="Address to bind to (CLASPER_HOST, 127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port (CLASPER_PORT, 8081).")
def command(host: str | None, port: int | None) -> None:
    """Run the HTTP shim: enqueue and follow turns from any language.

    Beyond loopback it wants a key: AGENT_DAEMON_API_KEY, sent as X-Agent-Daemon-Key.
    """
    import uvicorn  # noqa: PLC0415 - `clasper serve --help` does without

    from clasper_worker.shim.app import create_app  # noqa: PLC0415 - likewise
    from clasper_worker.shim.auth import refuse_open_door  # noqa: PLC0415 - likewise
    from clasper_worker.shim.connections import MAX_HEADER_BYTES, BoundedConnection, connection_cap  # noqa: PLC0415 - likewise
    from clasper_worker.shim.services import ShimServices  # noqa: PLC0415 - likewise
    from clasper_worker.startup_checks import warn_of_doubtful_settings  # noqa: PLC0415 - likewise

    given = {"clasper_host": host, "clasper_port": port}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    configure_logging(settings)
    refuse_contradictions(settings)
    refuse_open_door(settings)
    warn_of_doubtful_settings(settings)
    listener = listen_on(
        settings.clasper_host,
        settings.clasper_port,
        host_name="CLASPER_HOST (--host)",
        port_name="CLASPER_PORT (--port)",
    )
    BoundedConnection.cap = connection_cap()
    services = ShimServices.from_settings(settings)

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # Their clients go on elsewhere; else it would wait for the turns that they follow.
            services.streams.stop()
            await super().shutdown(sockets)

    server = Server(
        uvicorn.Config(
            create_app(settings, services),
            http=BoundedConnection,
            ws="none",
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            timeout_graceful_shutdown=_STOP_SECONDS,
            log_config=None,
            access_log=False,
            server_header=False,
        )
    )
    with contextlib.suppress(KeyboardInterrupt):  # which uvicorn raises again once it has ended
        server.run(sockets=[listener])
    if not server.started:
        sys.exit(1)
