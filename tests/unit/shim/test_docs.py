"""The page that shows the API."""

import base64

import pytest

from tests.unit.shim.shims import caller, shim_app


async def test_the_root_leads_to_the_page_whose_parts_all_come_from_the_shim() -> None:
    async with caller(shim_app()) as client:
        page = await client.get("/", follow_redirects=True)
        assert (page.status_code, page.url.path) == (200, "/docs")
        assert "//" not in page.text.replace("<!doctype", "")
        for part in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "favicon-32x32.png"):
            assert f'"docs/{part}"' in page.text
            answer = await client.get(f"/docs/{part}")
            assert answer.status_code == 200
            assert answer.content
        assert "'unsafe-eval'" not in page.headers["content-security-policy"]
        assert page.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/health?deep=true"])
async def test_with_a_key_the_page_wants_it_and_takes_it_as_a_browsers_password(path: str) -> None:
    async with caller(shim_app(agent_daemon_api_key="old, new")) as client:
        refused = await client.get(path)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic ")
        assert refused.json()["code"] == "unauthorized"
        for user, password, status in (("", "new", 200), ("x", "old", 200), ("new", "no", 401)):
            answer = await client.get(path, auth=(user, password))
            taken = answer.status_code != 401
            assert taken == (status == 200)
        assert (await client.get(path, headers={"X-Daemon-Key": "new"})).status_code != 401


@pytest.mark.parametrize("given", ["Basic", "Basic !", "Basic bmV3", "Bearer new"])
async def test_a_password_that_cannot_be_read_is_none(given: str) -> None:
    async with caller(shim_app(agent_daemon_api_key="new")) as client:
        answer = await client.get("/docs", headers={"Authorization": given})
        assert answer.status_code == 401


async def test_a_password_opens_nothing_that_changes_something() -> None:
    async with caller(shim_app(agent_daemon_api_key="new")) as client:
        basic = "Basic " + base64.b64encode(b"x:new").decode()
        answer = await client.post("/boot/complete", headers={"Authorization": basic})
        assert answer.status_code == 401
