"""``clasper backend``: the reference backend as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from types import FrameType

import click
import uvicorn

from clasper_worker.config.settings import load_settings
from clasper_worker.devkit.reference_backend import FEATURES, BackendConfig, create_app
from clasper_worker.devkit.reference_backend.config import IN_MEMORY
from clasper_worker.engine.http.listening import is_loopback, listen_on, url_of
from clasper_worker.errors import ConfigurationError

_SHORT_SECRET_BYTES = 32  # RFC 7518, section 3.2, for HS256
_STOP_SECONDS = 5  # for requests in flight when it is asked to stop


@click.command(
    epilog="""\b
Example:
  AGENT_JWT_SECRET=dev-secret-change-me clasper backend --database :memory:
"""
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=9001,
    show_default=True,
    help="Port to listen on; 0 for any that is free.",
)
@click.option(
    "--database",
    metavar="PATH",
    help=f"SQLite file, or {IN_MEMORY}.  [default: backend.db in CLASPER_STATE_DIR]",
)
@click.option(
    "--disable-feature",
    "disabled",
    type=click.Choice(list(FEATURES)),
    multiple=True,
    metavar="NAME",
    help=f"Switch a feature off; may be repeated. One of: {', '.join(FEATURES)}.",
)
@click.option(
    "--register-agents",
    is_flag=True,
    help="List each agent that posts a message among those that get heartbeats and standups.",
)
@click.option(
    "--page/--no-page",
    "shows_page",
    default=None,
    help="Show a chat and the data at /, to browsers that call this machine localhost. It acts for "
    "every user, without a sign-in.  [default: where --host is loopback]",
)
@click.option("--access-log", is_flag=True, help="Log each request.")
def command(
    *,
    host: str,
    port: int,
    database: str | None,
    disabled: tuple[str, ...],
    register_agents: bool,
    shows_page: bool | None,
    access_log: bool,
) -> None:
    """Run the reference backend: Mission Control, contract v1, over SQLite.

    Reads AGENT_JWT_SECRET (required), AGENT_JWT_ALGORITHM and INTERNAL_API_TOKEN. Without the
    last one, the features for the dispatcher are off. The API is described at /docs. The page asks
    for turns at AGENT_DAEMON_URL, with AGENT_DAEMON_API_KEY.
    """
    shows_page = is_loopback(host) if shows_page is None else shows_page
    config = _configure(
        database, frozenset(disabled), registers_agents=register_agents, page=shows_page
    )
    app = create_app(config)
    with listen_on(host, port, host_name="--host", port_name="--port") as listener:
        server = _Server(
            uvicorn.Config(
                app,
                log_level="info" if access_log else "warning",
                access_log=access_log,
                timeout_graceful_shutdown=_STOP_SECONDS,
            )
        )
        server.banner = _banner(config, listener)
        # uvicorn raises the signal again when it has shut down; that is then a success.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _exit_cleanly)
        server.run(sockets=[listener])


class _Server(uvicorn.Server):
    banner = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        click.echo(self.banner)


def _configure(
    database: str | None, disabled: frozenset[str], *, registers_agents: bool, page: bool
) -> BackendConfig:
    settings = load_settings()
    if settings.agent_jwt_secret is None:
        raise ConfigurationError(
            "AGENT_JWT_SECRET is not set: the backend verifies agent tokens with it. Set it in "
            "the environment or in .env, the same for the backend and the workers.",
            {"variable": "AGENT_JWT_SECRET"},
        )
    secret = settings.agent_jwt_secret.get_secret_value()
    if len(secret.encode()) < _SHORT_SECRET_BYTES:
        click.echo(
            "Warning: AGENT_JWT_SECRET is shorter than 32 bytes; good enough for development only.",
            err=True,
        )
    token = settings.internal_api_token
    return BackendConfig(
        agent_jwt_secret=secret,
        agent_jwt_algorithm=settings.agent_jwt_algorithm,
        internal_api_token=token.get_secret_value() if token else None,
        database=database or _default_database(settings.clasper_state_dir),
        registers_agents=registers_agents,
        disabled_features=disabled,
        page=page,
        daemon_url=settings.agent_daemon_url,
        daemon_key=next(iter(settings.daemon_api_keys), None),
        workspace=settings.clasper_workspace,
    )


def _default_database(state_dir: Path) -> str:
    try:
        os.umask(0o077)  # it holds what people said: its owner alone reads it
        state_dir.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigurationError(
            f"CLASPER_STATE_DIR ({state_dir}) cannot be made: {exc.strerror}. Set another one, or "
            "give --database.",
            {"variable": "CLASPER_STATE_DIR"},
        ) from exc
    return str(state_dir / "backend.db")


def _banner(config: BackendConfig, listener: socket.socket) -> str:
    off = [name for name in FEATURES if not config.has(name)]
    page = "; open it in a browser to chat" if config.page else ""
    lines = [f"Reference backend on {url_of(listener)} (database: {config.database}{page})"]
    if off:
        lines.append(f"Features that are off: {', '.join(off)}")
    return "\n".join(lines)


def _exit_cleanly(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    raise SystemExit(0)
