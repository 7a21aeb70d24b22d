"""Every promise of the contract, kept by the reference backend and broken on purpose."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from clasper_worker.conformance.registry import CHECKS, check
from clasper_worker.conformance.run import Outcome, run_checks
from clasper_worker.conformance.target import Target
from clasper_worker.errors import BackendUnavailableError, ConfigurationError
from tests.broken_backend import BREAKAGES, INTERNAL, Broken, Inner, Request, Response, serving


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Broken, Target]]:
    with serving() as both:
        yield both


@pytest.fixture
def broken(served: tuple[Broken, Target]) -> Iterator[Broken]:
    yield served[0]
    served[0].breakage = None


def outcomes(target: Target, *only: str) -> dict[str, Outcome]:
    found = asyncio.run(run_checks(target, only))
    return {one.check.name: one for one in found}


def test_the_reference_backend_passes_every_check_and_none_is_skipped(
    served: tuple[Broken, Target],
) -> None:
    found = outcomes(served[1])
    assert {name: one.came for name, one in found.items() if one.status != "passed"} == {}
    assert list(found) == list(CHECKS)


def test_every_check_has_a_backend_that_breaks_it() -> None:
    assert {name.split()[0] for name in BREAKAGES} == set(CHECKS)


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_broken_backend_is_caught_by_the_check_of_that_name(
    name: str, served: tuple[Broken, Target], broken: Broken
) -> None:
    broken.breakage = BREAKAGES[name]
    own = name.split(maxsplit=1)[0]
    outcome = outcomes(served[1], own)[own]
    assert outcome.status == "failed", outcome.came
    assert outcome.came
    assert outcome.check.wants
    assert outcome.check.why


def test_with_a_token_alone_checks_that_sign_tokens_are_skipped_and_say_what_to_set(
    served: tuple[Broken, Target],
) -> None:
    whole = served[1]

    token = Request("GET", "", {}, {}, b"").by("u1").headers["x-agent-token"]
    found = outcomes(Target(whole.url, agent_token=token, internal_token=INTERNAL))
    assert {one.status for one in found.values()} == {"passed", "skipped"}
    skipped = {name for name, one in found.items() if "AGENT_JWT_SECRET" in one.came}
    assert {"auth.alg_none", "auth.expired", "isolation.list", "idempotency.per_tenant"} <= skipped
    assert found["tasks.create"].status == "passed"


def test_where_nothing_listens_it_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(BackendUnavailableError, match="CONTROL_PLANE_URL"):
        outcomes(Target(f"http://127.0.0.1:{port}", secret="s" * 32))


@pytest.mark.parametrize(
    ("url", "secret", "variable"),
    [("ftp://x", "s", "CONTROL_PLANE_URL"), ("http://x", None, "AGENT_JWT_SECRET")],
)
def test_what_cannot_be_run_names_the_variable(url: str, secret: str | None, variable: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Target(url, secret=secret)
    assert caught.value.details["variable"] == variable


def test_two_checks_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"auth\.missing"):
        check("auth.missing", wants="", why="")(CHECKS["auth.missing"].run)


def test_the_documentation_has_a_row_for_every_check() -> None:
    text = (Path(__file__).parents[3] / "docs" / "conformance.md").read_text()
    rows = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert [row for row in rows if "." in row] == list(CHECKS)


def test_features_may_be_announced_by_the_originals_list(
    served: tuple[Broken, Target], broken: Broken
) -> None:
    async def listing(request: Request, inner: Inner) -> Response:
        answer = await inner(request)
        if not request.path.endswith("/capabilities"):
            return answer
        return answer.having(features={}, features_list=["/api/tools"])

    broken.breakage = listing
    found = outcomes(served[1], "tools.list", "agents.list")
    assert found["tools.list"].status == "passed"
    assert found["agents.list"].status == "skipped"
    assert "does not announce" in found["agents.list"].came


@pytest.mark.parametrize(
    ("name", "method", "ending", "body"),
    [
        ("tools.run", "GET", "/tools", b'{"tools": [{"effect": "read", "parameters": []}]}'),
        ("isolation.list", "GET", "/tasks", b'{"items": [{"id": []}]}'),
        ("errors.missing_content", "POST", "/tasks", b'{"id": "\\ud800"}'),
    ],
)
def test_an_answer_of_an_unexpected_shape_fails_its_check_and_ends_no_other(
    name: str,
    method: str,
    ending: str,
    body: bytes,
    served: tuple[Broken, Target],
    broken: Broken,
) -> None:
    async def odd(request: Request, inner: Inner) -> Response:
        return Response(200, body) if request.on(method, ending) else await inner(request)

    broken.breakage = odd
    found = outcomes(served[1], name, "capabilities.version")
    assert found[name].status == "failed"
    assert found["capabilities.version"].status == "passed"
