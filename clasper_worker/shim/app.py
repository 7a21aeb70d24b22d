"""The HTTP shim's app: enqueue turns and follow them, for backends in any language."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute

from clasper_worker import __version__
from clasper_worker.config.settings import Settings
from clasper_worker.engine.http.asgi_routes import prepare_routes
from clasper_worker.shim.auth import KEY_SECURITY, DaemonKey
from clasper_worker.shim.broker_figures import BrokerWatch
from clasper_worker.shim.compact import compact_routes
from clasper_worker.shim.description import TAGS, ShimApp, problems
from clasper_worker.shim.docs import docs_routes
from clasper_worker.shim.health import health_routes
from clasper_worker.shim.http import ANY_ERROR, install_problem_answers
from clasper_worker.shim.job_routes import job_routes
from clasper_worker.shim.llm_task import llm_task_routes
from clasper_worker.shim.loopback import LoopbackOnly
from clasper_worker.shim.metrics import Measured, metrics_routes
from clasper_worker.shim.queue_limit import QueueLimit
from clasper_worker.shim.send import send_routes
from clasper_worker.shim.services import ShimServices
from clasper_worker.shim.tracing import Traced
from clasper_worker.shim.usage_routes import usage_routes
from clasper_worker.shim.version_routes import version_routes
from clasper_worker.shim.workspace_routes import workspace_routes

_ENQUEUEING = (send_routes, compact_routes, llm_task_routes)


def create_app(settings: Settings, services: ShimServices | None = None) -> FastAPI:
    """Make the shim over the broker and result backend that the settings name.

    Args:
        settings: the operator's.
        services: collaborators to use instead of those that the settings lead to.
    """
    services = services or ShimServices.from_settings(settings)

    watch = BrokerWatch.from_settings(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await watch.close()
        await services.close()

    queue_limit = QueueLimit(watch, settings.clasper_queue_limit)
    keys = settings.daemon_api_keys
    app = ShimApp(
        title="Clasper Worker",
        version=__version__,
        description="Enqueue agent turns and follow them. Every error is `{error, code, details}`.",
        license_info={"name": "MIT", "identifier": "MIT"},
        openapi_tags=TAGS,
        # The page and the document are ours, at the usual places: `docs_routes`.
        openapi_url=None,
        servers=[{"url": "/", "description": "The shim that this document comes from"}],
        lifespan=lifespan,
        responses=ANY_ERROR,
    )
    app.has_key = bool(keys)
    install_problem_answers(app)
    for routes in (
        send_routes,
        job_routes,
        compact_routes,
        llm_task_routes,
        workspace_routes,
        usage_routes,
        version_routes,
    ):
        router = routes(services)
        for route in router.routes:
            if keys and isinstance(route, APIRoute):
                route.openapi_extra = {**(route.openapi_extra or {}), "security": KEY_SECURITY}
                route.responses |= problems(401)
        full = [Depends(queue_limit)] if routes in _ENQUEUEING else []
        app.include_router(router, dependencies=[Depends(DaemonKey(keys)), *full])
    health = health_routes(services)  # open without the key
    for route in health.routes:
        if keys and isinstance(route, APIRoute) and route.path == "/health":
            # It wants the key for some of what it tells.
            route.openapi_extra = {"security": [{}, *KEY_SECURITY]}
    app.include_router(health)
    app.include_router(metrics_routes(watch, keys if settings.clasper_metrics_keyed else ()))
    app.include_router(docs_routes(app, keys))
    if not keys:
        app.add_middleware(LoopbackOnly)
    app.add_middleware(Measured)
    app.add_middleware(Traced)
    prepare_routes(app)
    return app
