"""Read a task's messages and documents from a Mission Control backend, as a person's UI would.

Knows the backend's address and the shared secret, and nothing of the worker or its queue.

Usage: BACKEND_URL=… AGENT_JWT_SECRET=… python read_backend.py USER_ID TASK_ID
"""

import json
import os
import sys
import time
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPRedirectHandler, Request, build_opener

import jwt

BASE = os.environ["BACKEND_URL"].rstrip("/") + "/api/mission-control"


class _NoRedirects(HTTPRedirectHandler):
    """Leaves redirects alone: urllib would send the token to wherever they lead."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none: the answer is an error then, and names the status."""


_http = build_opener(_NoRedirects)


def read_all(user_id: str, collection: str, **query: str) -> list[dict[str, Any]]:
    """Every item of a collection of the user, page after page."""
    claims: dict[str, Any] = {"type": "agent", "user_id": user_id, "agent_role": "reader"}
    claims |= {"exp": int(time.time()) + 60}
    token = jwt.encode(claims, os.environ["AGENT_JWT_SECRET"], algorithm="HS256")
    items: list[dict[str, Any]] = []
    while True:
        url = f"{BASE}/{collection}?{urlencode(query)}"
        with _http.open(Request(url, headers={"X-Agent-Token": token}), timeout=10) as answer:
            page = json.load(answer)
        items += page["items"]
        if not page.get("next_cursor"):
            return items
        query["cursor"] = page["next_cursor"]


if __name__ == "__main__":
    user, task = sys.argv[1:3]
    found = {
        "tasks": read_all(user, "tasks"),
        "messages": read_all(user, "messages", task_id=task),
        "documents": read_all(user, "documents", task_id=task),
    }
    print(json.dumps(found))
