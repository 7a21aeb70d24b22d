"""An app whose routes are ready before its first request.

FastAPI makes the routes of included routers, their validators among them, when the first request
looks for its own. That holds the event loop (75 ms for the reference backend), and apps that are
first asked in several threads at once change Python's warning filters under one another: where
warnings are errors, one of them answers 500.
"""

from __future__ import annotations

import threading

from fastapi import FastAPI

# It is looked for among all routes, which none of them may have.
_NOWHERE = "/\0"
_one_at_a_time = threading.Lock()


def prepare_routes(app: FastAPI) -> None:
    """Make all routes of an app that has them all; called once, before the app is handed out."""
    with _one_at_a_time:
        for route in app.routes:
            route.matches(
                {
                    "type": "http",
                    "method": "GET",
                    "path": _NOWHERE,
                    "root_path": "",
                    "headers": [],
                    "query_string": b"",
                }
            )
