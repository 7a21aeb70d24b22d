"""Shims over an in-memory broker and a fake Redis."""

from typing import Any

import fakeredis
import httpx2

from clasper_worker.client import ClasperClient
from clasper_worker.config.names import QUEUES
from clasper_worker.config.settings import Settings
from clasper_worker.engine.queue.cancel import Canceller
from clasper_worker.shim.app import create_app
from clasper_worker.shim.boot import BootRecord
from clasper_worker.shim.description import ShimApp
from clasper_worker.shim.results import JobRegister
from clasper_worker.shim.services import ShimServices, ShimWorkspaces
from clasper_worker.streams.reader import StreamReader
from clasper_worker.streams.results import JobResults
from clasper_worker.turn.request import RequestLimits

HERE = "http://127.0.0.1:8081"


def shim_app(**given: Any) -> ShimApp:
    """A shim by these settings."""
    settings = Settings(
        _env_file=None,
        celery_broker_url="memory://",
        celery_result_backend="cache+memory://",
        **given,
    )
    client = ClasperClient.from_settings(settings)
    redis = fakeredis.FakeAsyncRedis()
    results = JobResults(client.app, settings.result_backend_url)
    services = ShimServices(
        settings,
        client,
        results,
        JobRegister(redis, ttl_seconds=60),
        RequestLimits.from_settings(settings),
        Canceller(client.app, None, QUEUES),
        ShimWorkspaces(settings),
        BootRecord(redis),
        StreamReader(redis, results),
    )
    return create_app(settings, services)  # type: ignore[return-value]


def caller(app: ShimApp, base_url: str = HERE) -> httpx2.AsyncClient:
    """A client of it."""
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url=base_url)
