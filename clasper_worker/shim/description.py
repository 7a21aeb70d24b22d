"""The shim's OpenAPI document: for client generators, and for people at ``/docs``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from clasper_worker.shim.schemas import Problem
from clasper_worker.streams.schema import EVENTS
from clasper_worker.turn.compact import CompactRequest
from clasper_worker.turn.llm_task import LlmTaskRequest
from clasper_worker.turn.request import SendRequest

_SCHEMAS = "#/components/schemas/"
_DESCRIBED: tuple[type[BaseModel], ...] = (
    SendRequest,
    CompactRequest,
    LlmTaskRequest,
    *EVENTS,
)

TAGS = [
    {"name": "turns", "description": "Ask for an agent's turn."},
    {"name": "jobs", "description": "Follow what was asked for, or cancel it."},
    {"name": "workspace", "description": "What agents are told, as this machine sees it."},
    {"name": "operations", "description": "Whether the shim is well."},
]
KEY_SCHEMES = {
    "DaemonKey": {"type": "apiKey", "in": "header", "name": "X-Agent-Daemon-Key"},
    "ShortDaemonKey": {"type": "apiKey", "in": "header", "name": "X-Daemon-Key"},
}
_MEANINGS = {
    400: "The request cannot be used; `details.fields` names what is wrong with it",
    401: "The key is missing or wrong",
    403: "Not from there: see the error",
    404: "There is no such thing",
    409: "The key was used with another request, or the turn was cancelled or its session busy",
    413: "The body is too large",
    415: "The body is not JSON in UTF-8",
    429: "Too many turns of the session wait",
    500: "Our configuration or fault",
    502: "The model or the backend failed",
    503: "The broker or Redis does not answer; try again",
    504: "It did not end in time",
}

EVENTS_ANSWER: dict[str, Any] = {
    "description": "Server-sent events: each has an `id`, its type as `event`, and as `data` one of"
    " the schemas "
    + ", ".join(f"`{model.__name__}`" for model in EVENTS)
    + ". The last one is `done` or `error`; a stream that ends without goes on where it is asked"
    " for again with `Last-Event-ID`",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}


def problems(*statuses: int, model: Any = Problem) -> dict[int | str, dict[str, Any]]:
    """For a route's ``responses``: the errors that it answers."""
    return {status: {"model": model, "description": _MEANINGS[status]} for status in statuses}


def json_body(model: type[BaseModel], examples: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """For a route's ``openapi_extra``: its body, which it reads itself.

    Args:
        model: one of those that `ShimApp` describes.
        examples: bodies by what they are for.
    """
    content = {
        "schema": {"$ref": f"{_SCHEMAS}{model.__name__}"},
        "examples": {
            name: {"summary": name, "value": dict(value)} for name, value in examples.items()
        },
    }
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


class ShimApp(FastAPI):
    """An app whose document holds the models of the bodies that routes read themselves.

    Attributes:
        has_key: whether its routes want the daemon key.
    """

    has_key = False

    def openapi(self) -> dict[str, Any]:
        """The document."""
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document["components"]["schemas"]
            for name, schema in _body_schemas().items():
                if schemas.setdefault(name, schema) != schema:
                    raise TypeError(f"two models are called {name}")
            for schema in schemas.values():
                _without_defaults(schema)
            document["components"]["schemas"] = dict(sorted(schemas.items()))
            if self.has_key:
                document["components"]["securitySchemes"] = KEY_SCHEMES
        assert self.openapi_schema is not None  # noqa: S101 - FastAPI's has set it
        return self.openapi_schema


def _body_schemas() -> dict[str, Any]:
    _, made = models_json_schema(
        [(model, "validation") for model in _DESCRIBED], ref_template=f"{_SCHEMAS}{{model}}"
    )
    schemas: dict[str, Any] = made["$defs"]
    return schemas


def _without_defaults(schema: dict[str, Any]) -> None:
    """Say what a field is when it is left out in words alone.

    Generators take a default for a promise that the field is there, and so for one that is wanted.
    """
    for field in schema.get("properties", {}).values():
        default = field.pop("default", None)
        if isinstance(default, bool | int | str):
            told = f"{json.dumps(default)} when left out."
            field["description"] = f"{field.get('description', '')} {told}".strip()
