"""``/api/version`` and ``/api/compatibility``, before backends of all kinds."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from clasper_worker import __version__
from clasper_worker.shim import backend_probe
from clasper_worker.shim.schemas import Compatibility, Version
from tests.unit.shim.shims import caller, shim_app

V1 = {"contract_version": "v1", "features": {"tasks": True, "messages": True, "documents": True}}


async def test_versions_of_program_and_contract_are_told() -> None:
    async with caller(shim_app()) as client:
        told = Version.model_validate((await client.get("/api/version")).json())
    assert (told.version, told.contract_version) == (__version__, "v1")
    assert told.contract_versions == ["v1", "1.1.0"]


def answering(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[httpx2.Request], httpx2.Response]
) -> list[httpx2.Request]:
    asked: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return answer(request)

    def client(seconds: float, server: str) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.MockTransport(handle), base_url=server)

    monkeypatch.setattr(backend_probe, "open_http_client", client)
    return asked


async def compatibility() -> Compatibility:
    app = shim_app(backend_url="http://backend", agent_jwt_secret="s" * 32, user_id="u1")
    async with caller(app) as client:
        answer = await client.get("/api/compatibility")
    assert answer.status_code == 200
    return Compatibility.model_validate(answer.json())


@pytest.mark.parametrize(
    ("body", "status", "compatible"),
    [
        (V1, "ok", True),
        ({**V1, "contract_version": "1.1.0"}, "ok", True),
        ({**V1, "features": {"future": True}}, "ok", True),
        ({**V1, "contract_version": "v2"}, "incompatible", False),
        ({**V1, "features": {"messages": False}}, "incompatible", False),
        ({"features": 3}, "unknown", None),
    ],
)
async def test_a_backend_fits_by_its_contract_version_and_what_turns_need(
    monkeypatch: pytest.MonkeyPatch, body: Any, status: str, compatible: Any
) -> None:
    asked = answering(monkeypatch, lambda _: httpx2.Response(200, json=body))
    told = await compatibility()
    assert (told.status, told.compatible) == (status, compatible)
    assert (told.problem is None) == (status == "ok")
    assert asked[0].headers["x-agent-token"].count(".") == 2


async def test_the_originals_place_is_asked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def original(request: httpx2.Request) -> httpx2.Response:
        found = request.url.path == "/api/capabilities"
        return httpx2.Response(200, json=V1) if found else httpx2.Response(404, json={})

    answering(monkeypatch, original)
    assert (await compatibility()).contract_version == "v1"


@pytest.mark.parametrize(("code", "status"), [(404, "ok"), (401, "unknown"), (500, "unknown")])
async def test_a_backend_that_says_nothing_of_itself_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch, code: int, status: str
) -> None:
    answering(monkeypatch, lambda _: httpx2.Response(code, json={"error": "no"}))
    told = await compatibility()
    assert (told.status, bool(told.problem)) == (status, True)


async def test_without_a_backend_the_variable_is_named() -> None:
    async with caller(shim_app()) as client:
        told = (await client.get("/api/compatibility")).json()
    assert told["status"] == "unknown"
    assert "BACKEND_URL" in told["problem"]
