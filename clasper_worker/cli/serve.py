"""``clasper serve``: the HTTP shim."""

from __future__ import annotations

import click

from clasper_worker.contradictions import refuse_contradictions
from clasper_worker.settings import load_settings
from clasper_worker.telemetry import configure_logging


@click.command(name="serve", epilog="Example: clasper serve --port 8081")
@click.option("--host", help="Address to bind to (CLASPER_HOST, 127.0.0.1).")
@click.option("--port", type=int, help="Port (CLASPER_PORT, 8081).")
def command(host: str | None, port: int | None) -> None:
    """Run the HTTP shim: enqueue and follow turns from any language.

    Beyond loopback it wants a key: AGENT_DAEMON_API_KEY, sent as X-Agent-Daemon-Key.
    """
    import uvicorn  # noqa: PLC0415 - `clasper serve --help` does without

    from clasper_worker.doubtful_settings import warn_of_doubtful_settings  # noqa: PLC0415 - likewise
    from clasper_worker.shim.app import create_app  # noqa: PLC0415 - likewise
    from clasper_worker.shim.auth import refuse_open_door  # noqa: PLC0415 - likewise

    given = {"clasper_host": host, "clasper_port": port}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    configure_logging(settings)
    refuse_contradictions(settings)
    refuse_open_door(settings)
    warn_of_doubtful_settings(settings)
    uvicorn.run(
        create_app(settings),
        host=settings.clasper_host,
        port=settings.clasper_port,
        log_config=None,
        access_log=False,
    )
