"""The OpenAPI document."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from clasper_worker.shim.schemas import Context, Health, Job, Problem, Queued, Skills
from tests.unit.shim.shims import caller, shim_app

WORKSPACE = Path(__file__).parents[3] / "workspace"
REQUEST = {"user_id": "u1", "message": "Hello", "task_title": "T"}


@pytest.fixture(params=[{}, {"agent_daemon_api_key": "k"}], ids=["keyless", "keyed"])
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    return shim_app(**request.param).openapi()


def nested(value: Any) -> Iterator[dict[str, Any]]:
    """Every object within a JSON value."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from nested(item)
    elif isinstance(value, list):
        for item in value:
            yield from nested(item)


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = [found["$ref"] for found in nested(document) if "$ref" in found]
    assert "#/components/schemas/SendRequest" in references
    for reference in references:
        place: Any = document
        assert reference.startswith("#/")
        for part in reference[2:].split("/"):
            place = place[part]


def test_every_operation_has_a_name_a_tag_a_summary_and_typed_answers(
    document: dict[str, Any],
) -> None:
    names = [operation["operationId"] for operation in operations(document)]
    assert len(set(names)) == len(names)
    assert all(name.isalnum() for name in names)
    tags = {tag["name"] for tag in document["tags"]}
    for operation in operations(document):
        assert set(operation["tags"]) <= tags
        assert operation["summary"]
        for status, answer in operation["responses"].items():
            if status == "204":
                assert "content" not in answer
                continue
            (content,) = answer["content"].values()
            assert content["schema"], (operation["operationId"], status)


def test_no_field_has_a_default_which_generators_take_for_a_promise_to_be_there(
    document: dict[str, Any],
) -> None:
    for schema in document["components"]["schemas"].values():
        for field in schema.get("properties", {}).values():
            assert "default" not in field
    send = document["components"]["schemas"]["SendRequest"]
    assert send["required"] == ["user_id", "message"]
    assert "false when left out" in send["properties"]["stream"]["description"]


def test_bodies_have_examples_that_fit_their_schema(document: dict[str, Any]) -> None:
    from jsonschema import Draft202012Validator

    for operation in operations(document):
        body = operation.get("requestBody")
        if body is None:
            continue
        content = body["content"]["application/json"]
        assert content["examples"]
        schema = {**content["schema"], "components": document["components"]}
        for example in content["examples"].values():
            Draft202012Validator(schema).validate(example["value"])


def test_a_route_that_wants_the_key_says_so_and_which_headers_take_it() -> None:
    document = shim_app(agent_daemon_api_key="k").openapi()
    schemes = document["components"]["securitySchemes"]
    assert {scheme["name"] for scheme in schemes.values()} == {
        "X-Agent-Daemon-Key",
        "X-Daemon-Key",
    }
    for operation in operations(document):
        if operation["operationId"] == "getReadiness":  # for load balancers, which have no key
            assert "security" not in operation
            continue
        assert "401" in operation["responses"]
        names = {name for wanted in operation["security"] for name in wanted}
        assert names == set(schemes)


async def test_what_is_answered_is_what_the_document_says() -> None:
    async with caller(shim_app(clasper_workspace=str(WORKSPACE))) as client:
        queued = (await client.post("/api/agents/send", json=REQUEST)).json()
        Queued.model_validate(queued)
        Job.model_validate((await client.get(queued["status_url"])).json())
        cancelled = (await client.delete(queued["status_url"])).json()
        assert Job.model_validate(cancelled).error is not None
        Skills.model_validate((await client.get("/skills")).json())
        Context.model_validate((await client.get("/context")).json())
        deep = Health.model_validate((await client.get("/health?deep=true")).json())
        assert deep.checks is not None
        refused = Problem.model_validate((await client.post("/api/agents/send", json={})).json())
        assert refused.details.fields


def test_every_operation_is_in_the_documentation(document: dict[str, Any]) -> None:
    text = (Path(__file__).parents[3] / "docs" / "http-api.md").read_text("utf-8")
    named = {
        f"{method.upper()} {path}" for path, found in document["paths"].items() for method in found
    }
    assert {one for one in named if not re.search(f"`{re.escape(one)}[`?]", text)} == set()
