"""A FastAPI backend that has agents: enqueue a turn, stream it, get a webhook at its end.

    pip install clasper-worker
    CELERY_BROKER_URL=redis://localhost:6379/0 WEBHOOK_SECRET=… uvicorn fastapi_backend:app

``ClasperClient`` checks a request before it is enqueued, and follows a turn's events in Redis. It
loads neither the worker nor a model. The worker is elsewhere: ``clasper worker``.
"""

import json
import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from clasper_worker.client import ClasperClient
from clasper_worker.errors import InvalidRequestError, StateUnavailableError
from clasper_worker.webhooks.signature import SIGNATURE_HEADER, verify_signature

BROKER = os.environ["CELERY_BROKER_URL"]
SECRET = os.environ["WEBHOOK_SECRET"]

app = FastAPI(title="A backend with agents")
client = ClasperClient(BROKER, os.environ.get("CELERY_RESULT_BACKEND") or BROKER)
ended: dict[str, dict[str, Any]] = {}  # your database, in earnest


class Question(BaseModel):
    """What a person asks. Who asks, a real backend knows from its own sign-in."""

    user_id: str
    text: str
    key: str | None = None


@app.post("/questions", status_code=202)
def ask(question: Question, request: Request) -> dict[str, str]:
    """Enqueue a turn. Asked again with the same key, it is the same turn."""
    try:
        turn = client.send(
            {
                "user_id": question.user_id,
                "agent_role": "writer",
                "message": question.text,
                "task_title": "Questions",
                "stream": True,
                "webhook": {"url": str(request.url_for("turn_ended")), "secret": SECRET},
                **({"idempotency_key": question.key} if question.key else {}),
            }
        )
    except InvalidRequestError as exc:
        raise HTTPException(400, str(exc)) from exc
    except StateUnavailableError as exc:
        raise HTTPException(503, "The queue cannot be reached; try again.") from exc
    return {"job_id": turn.job_id, "turn_id": turn.turn_id}


@app.get("/questions/{job_id}/events")
async def events(
    job_id: str, last_event_id: Annotated[str | None, Header()] = None
) -> StreamingResponse:
    """The turn as server-sent events.

    A browser's EventSource connects again by itself, with its last event: nothing is lost.
    """

    async def relay() -> AsyncIterator[str]:
        async for event in client.follow(job_id, last_event_id=last_event_id):
            data = json.dumps(event.model_dump())
            yield f"id: {event.id}\nevent: {event.type}\ndata: {data}\n\n"

    return StreamingResponse(relay(), media_type="text/event-stream")


@app.post("/hooks/clasper", status_code=204)
async def turn_ended(request: Request) -> None:
    """The worker reports the end, perhaps twice: take the first of each ``delivery_id``."""
    body = await request.body()  # as it came: the signature is over these bytes
    if not verify_signature(SECRET, body, request.headers.get(SIGNATURE_HEADER)):
        raise HTTPException(401, "The signature is wrong, or old.")
    report = json.loads(body)
    ended.setdefault(report["job_id"], report)


@app.get("/questions/{job_id}")
def answer(job_id: str) -> dict[str, Any]:
    """What the webhook reported."""
    if job_id not in ended:
        raise HTTPException(404, "It has not ended yet.")
    return ended[job_id]
