"""The reference backend as one ASGI app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from clasper_worker import __version__
from clasper_worker.devkit.reference_backend.access import Backend
from clasper_worker.devkit.reference_backend.auth import TokenVerifier
from clasper_worker.devkit.reference_backend.config import BackendConfig
from clasper_worker.devkit.reference_backend.errors import (
    BodyLimit,
    ErrorBody,
    install_error_handlers,
)
from clasper_worker.devkit.reference_backend.events import Wakeups
from clasper_worker.devkit.reference_backend.page import routes as page
from clasper_worker.devkit.reference_backend.page.worker import Worker
from clasper_worker.devkit.reference_backend.routes import (
    discovery,
    documents,
    event_stream,
    messages,
    notifications,
    presence,
    tasks,
    tool_requests,
    tools,
)
from clasper_worker.devkit.reference_backend.store import Store
from clasper_worker.engine.http.asgi_routes import prepare_routes


def create_app(config: BackendConfig) -> FastAPI:
    """A backend that has the whole contract v1 (Part 1), required and optional.

    It is ready when this returns, with or without a server: in-process,
    ``httpx2.ASGITransport(create_app(config))`` will do. Each app has its own data; two apps on
    the same file share it, except that an event stream hears of its own app's writes only. The
    app's parts are on ``app.state.backend``; a server that ends closes the database.

    Raises:
        ConfigurationError: a setting or the database cannot be used.
    """
    wakeups = Wakeups()
    backend = Backend(
        config=config,
        tokens=TokenVerifier(config),
        wakeups=wakeups,
        worker=Worker(config.daemon_url, config.daemon_key),
        store=Store(config.database, events_kept=config.events_kept, on_change=wakeups.wake),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        yield
        await backend.worker.close()
        backend.store.close()

    app = FastAPI(
        title="Clasper reference backend",
        summary="Mission Control, contract v1, over SQLite: for development and tests.",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        responses={"4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}},
    )
    app.add_middleware(BodyLimit, limit=config.max_body_bytes)
    app.state.backend = backend
    install_error_handlers(app)
    for router in (
        discovery.router,
        tasks.router,
        messages.router,
        documents.router,
        notifications.router,
        notifications.dispatch,
        presence.router,
        presence.agents,
        event_stream.router,
        tool_requests.router,
        tools.router,
        page.router,
    ):
        app.include_router(router)
    prepare_routes(app)
    return app
