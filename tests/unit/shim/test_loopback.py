"""Who may call a shim that has no key."""

import pytest

from clasper_worker.shim.loopback import is_this_machine
from tests.unit.shim.shims import caller, shim_app


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        ("localhost", True),
        ("localhost:8081", True),
        ("LOCALHOST.", False),
        ("127.0.0.1:8081", True),
        ("127.9.9.9", True),
        ("[::1]:8081", True),
        ("agent.localhost", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost@evil.example", False),
        ("0.0.0.0", False),
        ("[::1", False),
        ("", False),
    ],
)
async def test_without_a_key_a_request_for_another_host_is_refused(
    host: str, is_here: bool
) -> None:
    assert is_this_machine(f"//{host}") is is_here
    async with caller(shim_app()) as client:
        for path in ("/health", "/openapi.json", "/api/jobs/x"):
            answer = await client.get(path, headers={"host": host})
            assert (answer.status_code == 403) is not is_here


async def test_without_a_key_another_pages_request_is_refused() -> None:
    async with caller(shim_app()) as client:
        for origin, status in (("https://evil.example", 403), ("null", 403)):
            answer = await client.post("/boot/complete", headers={"origin": origin})
            assert (answer.status_code, answer.json()["code"]) == (status, "not_this_machine")
        here = await client.get("/health", headers={"origin": "http://localhost:3000"})
        assert here.status_code == 200


async def test_with_a_key_any_host_may_be_named() -> None:
    async with caller(shim_app(agent_daemon_api_key="k"), "http://shim.example") as client:
        assert (await client.get("/health")).status_code == 200
