"""The HTTP shim's app: enqueue turns and follow them, for backends in any language."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI

from clasper_worker import __version__
from clasper_worker.asgi_routes import prepare_routes
from clasper_worker.settings import Settings
from clasper_worker.shim.auth import DESCRIBED_KEY, DaemonKey
from clasper_worker.shim.compact import compact_routes
from clasper_worker.shim.health import health_routes
from clasper_worker.shim.job_routes import job_routes
from clasper_worker.shim.problems import ANY_ERROR, install_problem_answers
from clasper_worker.shim.send import send_routes
from clasper_worker.shim.services import ShimServices
from clasper_worker.shim.workspace_routes import workspace_routes


def create_app(settings: Settings, services: ShimServices | None = None) -> FastAPI:
    """Make the shim over the broker and result backend that the settings name.

    Args:
        settings: the operator's.
        services: collaborators to use instead of those that the settings lead to.
    """
    services = services or ShimServices.from_settings(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await services.close()

    app = FastAPI(
        title="Clasper Worker",
        version=__version__,
        description="Enqueue agent turns and follow them. Every error is `{error, code, details}`.",
        lifespan=lifespan,
        responses=ANY_ERROR,
    )
    install_problem_answers(app)
    keyed = [Depends(DaemonKey(settings.daemon_api_keys))]
    if settings.daemon_api_keys:
        keyed.append(Depends(DESCRIBED_KEY))
    app.include_router(send_routes(services), dependencies=keyed)
    app.include_router(job_routes(services), dependencies=keyed)
    app.include_router(compact_routes(services), dependencies=keyed)
    app.include_router(workspace_routes(services), dependencies=keyed)
    app.include_router(health_routes(services))
    prepare_routes(app)
    return app
