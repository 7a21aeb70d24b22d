"""What is ready before an app's first request."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from clasper_worker.config.settings import Settings
from clasper_worker.devkit.reference_backend import BackendConfig
from clasper_worker.devkit.reference_backend import create_app as create_backend
from clasper_worker.shim.app import create_app as create_shim


def _backend(_: Callable[..., Settings]) -> FastAPI:
    return create_backend(BackendConfig(agent_jwt_secret="x" * 32, internal_api_token="internal"))


def _shim(settings_of: Callable[..., Settings]) -> FastAPI:
    return create_shim(settings_of())


@pytest.mark.parametrize("make", [_backend, _shim], ids=["reference backend", "shim"])
async def test_a_first_request_makes_no_validators(
    make: Callable[[Callable[..., Settings]], FastAPI],
    settings_of: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FastAPI changes the process's warning filters while it makes them, in whichever thread."""
    app = make(settings_of)
    changed = []
    enter = warnings.catch_warnings.__enter__

    def spy(self: Any) -> Any:
        changed.append(self)
        return enter(self)

    monkeypatch.setattr(warnings.catch_warnings, "__enter__", spy)
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/no/such/route")).status_code == 404
    assert changed == []
