"""A complete Mission Control backend (contract v1) over SQLite: demos, tests, development.

In-process, for tests::

    app = create_app(BackendConfig(agent_jwt_secret="…", internal_api_token="…"))
    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://backend")

As a process of its own: ``clasper backend``.
"""

from clasper_worker.devkit.reference_backend.app import create_app
from clasper_worker.devkit.reference_backend.config import FEATURES, BackendConfig

__all__ = ["FEATURES", "BackendConfig", "create_app"]
