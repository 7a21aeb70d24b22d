"""A Django backend that has agents, in one file: nothing of Clasper Worker is imported here.

    pip install django "celery[redis]"
    CELERY_BROKER_URL=redis://localhost:6379/0 WEBHOOK_SECRET=… python django_backend.py runserver

Its Celery app enqueues turns by name, as it enqueues tasks of its own, and reads their results as
any results. The worker is elsewhere: ``clasper worker``.
"""

import hashlib
import hmac
import json
import os
import secrets
import sys
import time
from typing import Any

from celery import Celery
from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

BROKER = os.environ["CELERY_BROKER_URL"]
SECRET = os.environ["WEBHOOK_SECRET"]
TOLERANCE_SECONDS = 300

settings.configure(
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY") or secrets.token_urlsafe(50),
)
celery = Celery("backend", broker=BROKER, backend=os.environ.get("CELERY_RESULT_BACKEND") or BROKER)
# Once for all: agents' tasks have their own queue, on which none of your workers may listen.
celery.conf.task_routes = {"clasper.*": {"queue": "clasper"}}
ended: dict[str, dict[str, Any]] = {}  # a model of yours, in earnest


@csrf_exempt  # your own sign-in and its protection take this place
@require_POST
def ask(request: HttpRequest) -> JsonResponse:
    """Enqueue a turn. Asked again with the same key, it is the same turn."""
    question = json.loads(request.body)
    kwargs = {
        "user_id": question["user_id"],
        "session_key": f"user:{question['user_id']}:writer",
        "message": question["text"],
        "task_title": "Questions",
        "webhook": {"url": request.build_absolute_uri("/hooks/clasper"), "secret": SECRET},
    }
    if question.get("key"):
        kwargs["idempotency_key"] = question["key"]
    # In a view that writes to the database: transaction.on_commit(lambda: celery.send_task(…)).
    turn = celery.send_task("clasper.send", kwargs=kwargs, kwargsrepr="(not shown)")
    return JsonResponse({"job_id": turn.id}, status=202)


@require_GET
def answer(request: HttpRequest, job_id: str) -> JsonResponse:
    """How the turn is doing, from Celery's result backend."""
    del request
    turn = celery.AsyncResult(job_id)
    shown: dict[str, Any] = {"state": turn.state, "reported": job_id in ended}
    if turn.state == "SUCCESS":
        shown |= {"response": turn.result["response"], "usage": turn.result["usage"]}
    elif turn.state == "FAILURE":
        shown |= {"error": type(turn.result).__name__}
    return JsonResponse(shown)


@csrf_exempt
@require_POST
def turn_ended(request: HttpRequest) -> HttpResponse:
    """The worker reports the end, perhaps twice: take the first of each ``delivery_id``."""
    if not is_signed(request.body, request.headers.get("X-Clasper-Signature", "")):
        return HttpResponse("The signature is wrong, or old.", status=401)
    report = json.loads(request.body)
    ended.setdefault(report["job_id"], report)
    return HttpResponse(status=204)


def is_signed(body: bytes, header: str) -> bool:
    """Whether a webhook is from whoever knows the secret, and not an old one sent again."""
    parts = [part.strip().partition("=")[::2] for part in header.split(",")]
    signed_at = dict(parts).get("t", "")
    if not (signed_at.isascii() and signed_at.isdigit() and len(signed_at) < 15):
        return False
    expected = hmac.new(SECRET.encode(), f"{signed_at}.".encode() + body, hashlib.sha256)
    is_good = any(
        hmac.compare_digest(expected.hexdigest().encode(), value.encode())
        for name, value in parts
        if name == "v1"
    )
    return is_good and abs(time.time() - int(signed_at)) <= TOLERANCE_SECONDS


urlpatterns = [
    path("questions", ask),
    path("questions/<str:job_id>", answer),
    path("hooks/clasper", turn_ended),
]
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
