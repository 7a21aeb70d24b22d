"""Answers of small servers that tests make."""

import json
from http.server import BaseHTTPRequestHandler
from typing import Any


class JsonHandler(BaseHTTPRequestHandler):
    """Reads and answers JSON; a client that has gone meanwhile is no error."""

    protocol_version = "HTTP/1.1"

    def body(self) -> Any:
        """What was posted."""
        return json.loads(self.rfile.read(int(self.headers["content-length"])))

    def answer(self, body: Any, status: int = 200) -> None:
        content = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Be quiet."""
