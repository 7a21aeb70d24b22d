"""``clasper conformance``: check a backend against contract v1."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
import threading
from collections.abc import Iterator

import click
import uvicorn

from clasper_worker.config.settings import load_settings
from clasper_worker.conformance.report import as_json, as_table, counts, write_reports
from clasper_worker.conformance.run import run_checks
from clasper_worker.conformance.target import Target
from clasper_worker.devkit.reference_backend import BackendConfig, create_app
from clasper_worker.engine.http.listening import listen_on, url_of
from clasper_worker.errors import ClasperError, ConfigurationError

_NOT_RUN = 2


@click.command(
    epilog="Example: AGENT_JWT_SECRET=… clasper conformance --url https://backend.example"
)
@click.option("--url", help="The backend's address.  [default: CONTROL_PLANE_URL]")
@click.option("--only", multiple=True, metavar="CHECK", help="Only this check; may be repeated.")
@click.option("--json", "as_json_too", is_flag=True, help="Print JSON instead of the table.")
def command(*, url: str | None, only: tuple[str, ...], as_json_too: bool) -> None:
    """Check a backend against contract v1, with AGENT_JWT_SECRET or (fewer checks) AGENT_TOKEN.

    INTERNAL_API_TOKEN adds the dispatcher's endpoints. Without an address the reference backend is
    started and checked. Reports as JSON and JUnit go to CONFORMANCE_REPORT_DIR. What it leaves
    behind is marked [conformance], in tenants named conformance-… where it may sign tokens.

    Exit code 0: all passed or skipped; 1: a check failed; 2: it could not be run.
    """
    try:
        settings = load_settings()
        with _target(url or settings.control_plane_url) as target:
            outcomes = asyncio.run(run_checks(target, only))
        write_reports(settings.conformance_report_dir, target.shown_url, outcomes)
    except ClasperError as exc:
        click.echo(f"Not run ({exc.code}): {exc}", err=True)
        sys.exit(_NOT_RUN)
    if as_json_too:
        click.echo(json.dumps(as_json(target.shown_url, outcomes)))
    else:
        click.echo(as_table(outcomes))
        click.echo(f"Reports: {settings.conformance_report_dir}")
    sys.exit(1 if counts(outcomes)["failed"] else 0)


@contextlib.contextmanager
def _target(url: str | None) -> Iterator[Target]:
    if not url:
        click.echo("CONTROL_PLANE_URL is not set: checking the reference backend.", err=True)
        with _reference_backend() as target:
            yield target
        return
    settings = load_settings()
    secret, token = settings.agent_jwt_secret, settings.agent_token
    internal = settings.internal_api_token
    if secret is not None and not settings.agent_jwt_algorithm.startswith("HS"):
        raise ConfigurationError(
            f"AGENT_JWT_ALGORITHM={settings.agent_jwt_algorithm} cannot sign with a shared secret:"
            " use HS256, HS384 or HS512, or give AGENT_TOKEN alone",
            {"variable": "AGENT_JWT_ALGORITHM"},
        )
    yield Target(
        url.rstrip("/"),
        secret=secret.get_secret_value() if secret else None,
        algorithm=settings.agent_jwt_algorithm,
        agent_token=token.get_secret_value() if token else None,
        internal_token=internal.get_secret_value() if internal else None,
    )


@contextlib.contextmanager
def _reference_backend() -> Iterator[Target]:
    secret, internal = secrets.token_hex(32), secrets.token_hex(16)
    app = create_app(BackendConfig(agent_jwt_secret=secret, internal_api_token=internal))
    with listen_on("127.0.0.1", 0, host_name="the host", port_name="the port") as listener:
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        )
        # The socket listens already: a request that comes early waits.
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield Target(url_of(listener), secret=secret, internal_token=internal)
        finally:
            server.should_exit = True
            thread.join(5)
