"""``clasper offline-model``: the OpenAI chat API on this machine, answered by rules."""

from __future__ import annotations

import signal
import socket
from types import FrameType

import click
import uvicorn

from clasper_worker.devkit.offline_model.server import OfflineModelConfig, create_app
from clasper_worker.engine.http.listening import is_loopback, listen_on, url_of

_SECONDS = click.FloatRange(min=0, max=3600)


@click.command(
    epilog="""\b
Example:
  clasper offline-model --port 9100
  OPENAI_BASE_URL=http://127.0.0.1:9100/v1 OPENAI_API_KEY=any clasper send …

GET /requests?limit=5 shows the last requests: what the agent told the model.""",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=9100,
    show_default=True,
    type=click.IntRange(0, 65_535),
    help="Port; 0 takes a free one.",
)
@click.option(
    "--latency", default=0.0, type=_SECONDS, metavar="SECONDS", help="Wait before each answer."
)
@click.option(
    "--chunk-delay",
    default=0.0,
    type=_SECONDS,
    metavar="SECONDS",
    help="Wait between the chunks of a streamed answer.",
)
@click.option(
    "--allow-remote",
    is_flag=True,
    help="Allow a host other machines can reach. There is no password: they can read /requests.",
)
def command(host: str, port: int, latency: float, chunk_delay: float, allow_remote: bool) -> None:
    """Run the offline model (OpenAI chat API, no key needed).

    It answers by rules, not by a language model, calls the tools that it is given when the words
    ask for it, and marks each reply with "[offline model]". Stops on Ctrl-C or SIGTERM.
    """
    if not allow_remote and not is_loopback(host):
        raise click.UsageError(
            f"--host {host} can be reached from other machines, and the offline model has no "
            "password. Use 127.0.0.1, or add --allow-remote if that is what you want."
        )
    listener = listen_on(host, port, host_name="--host", port_name="--port")
    config = OfflineModelConfig(latency=latency, chunk_delay=chunk_delay)
    server = _AnnouncingServer(
        uvicorn.Config(
            create_app(config),
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=3,
        )
    )

    def stop(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        server.should_exit = True

    # uvicorn hands the signals that stopped it to the handlers it found, so these make for exit
    # code 0; they also stop a server that is still starting.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.run(sockets=[listener])


class _AnnouncingServer(uvicorn.Server):
    """A server that prints its address once it accepts connections."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        for listener in sockets or []:
            click.echo(f"Offline model listening on {url_of(listener)}/v1")
