"""A small real HTTP server that plays what model servers answer, asked through the real client."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from openai import AsyncOpenAI

from clasper_worker.engine.http.client import open_http_client
from clasper_worker.llm.providers.catalogue import ModelRef
from clasper_worker.llm.providers.openai import OpenAICompatibleModel

Body = dict[str, Any]
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


@dataclass
class Played:
    """One answer: its status, its body (JSON, or bytes as they are), and how it comes.

    ``drip`` sends a blank a time, this many seconds apart, and never comes to an end. With
    ``parts`` the body comes in them, and ``ends`` says how: as it should, with the connection, or
    never.
    """

    status: int = 200
    body: object = b""
    headers: dict[str, str] = field(default_factory=dict)
    drip: float | None = None
    parts: Sequence[bytes] | None = None
    ends: Literal["whole", "cut", "open"] = "whole"


Answer = Played | Callable[[Body], Played]


def completion(message: Body, finish_reason: str = "stop", **more: Any) -> Played:
    """A chat completion of one message."""
    choice = {"index": 0, "finish_reason": finish_reason, "message": message}
    return Played(body={"model": "m-1", "choices": [choice], "usage": USAGE, **more})


def says(content: object, **message: Any) -> Played:
    return completion({"role": "assistant", "content": content, **message})


def event(data: object, end: bytes = b"\n\n") -> bytes:
    """A server-sent event."""
    said = data if isinstance(data, bytes) else json.dumps(data).encode()
    return b"data: " + said + end


def delta(said: object, finish_reason: str | None = None, **more: Any) -> bytes:
    """An event with a part of a message: its text, or its fields."""
    fields = said if isinstance(said, dict) else {"content": said}
    choice = {"index": 0, "delta": fields, "finish_reason": finish_reason}
    return event({"model": "m-1", "choices": [choice], **more})


STOP = delta({}, "stop")
COUNTED = event({"choices": [], "usage": USAGE})
DONE = event(b"[DONE]")


def streams(*parts: bytes, ends: Literal["whole", "cut", "open"] = "whole") -> Played:
    """An answer in parts, as they are given."""
    headers = {"Content-Type": "text/event-stream"}
    return Played(headers=headers, parts=parts, ends=ends)


def says_slowly(*texts: str) -> Played:
    """A whole streamed answer of these texts."""
    return streams(*(delta(text) for text in texts), STOP, COUNTED, DONE)


def refuses(status: int, message: str, /, **error: Any) -> Played:
    return Played(status, {"error": {"message": message, **error}})


class ModelServer:
    """Plays its answers in order, the last one again and again, and keeps what it was asked."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = list(answers)
        self.asked: list[Body] = []
        self.connections = 0
        self.closed = asyncio.Event()
        """Set once a client has closed a connection whose answer was not over."""
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ModelServer"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}/v1"
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().lower().split("\r\n")
                size = next(int(line[15:]) for line in lines if line.startswith("content-length:"))
                body = json.loads(await reader.readexactly(size))
                self.asked.append(body)
                answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                played = answer(body) if callable(answer) else answer
                await _play(played, writer)
                if played.ends == "cut":
                    return
                if played.ends == "open":
                    await reader.read()
                    self.closed.set()
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def _play(answer: Played, writer: asyncio.StreamWriter) -> None:
    if answer.parts is not None:
        await _play_parts(answer, writer)
        return
    body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
    headers = {"Content-Length": str(len(body)), "Content-Type": "application/json"}
    if answer.drip is not None:
        headers["Content-Length"] = "1000000"
    headers |= answer.headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {answer.status} X\r\n{lines}\r\n".encode() + body)
    await writer.drain()
    while answer.drip is not None:
        await asyncio.sleep(answer.drip)
        writer.write(b" ")
        await writer.drain()


async def _play_parts(answer: Played, writer: asyncio.StreamWriter) -> None:
    headers = {"Transfer-Encoding": "chunked", **answer.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {answer.status} X\r\n{lines}\r\n".encode())
    for part in filter(None, answer.parts or ()):
        writer.write(b"%x\r\n%s\r\n" % (len(part), part))
        await writer.drain()
        await asyncio.sleep(0)
    if answer.ends == "whole":
        writer.write(b"0\r\n\r\n")
    await writer.drain()


@asynccontextmanager
async def model_of(
    *answers: Answer, name: str = "m-1", **options: Any
) -> AsyncIterator[tuple[OpenAICompatibleModel, ModelServer]]:
    """A model behind a server that plays the answers; the options are the model's."""
    async with ModelServer(answers).running() as server:
        http = open_http_client(10.0)
        client = AsyncOpenAI(
            api_key="sk-SECRET", base_url=server.url, max_retries=0, http_client=http
        )
        try:
            yield OpenAICompatibleModel(client, ModelRef("openai", name), **options), server
        finally:
            await client.close()
