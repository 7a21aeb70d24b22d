"""The demo behind ``make demo``: real turns through the real parts, enqueued in three ways.

It starts ``clasper up`` in a folder of its own (Redis, worker, backend, model, HTTP shim), sends
three turns whose messages carry a random word, and then lets another process, which knows only
the backend's address, read what lies there. Exit code 0 only if each reply was found in the
backend, with its random word, and that word was in what the model was sent.

It is a world of its own: the backend, broker, keys, workspace and proxies that this machine's
environment, a ``.env`` or a running ``clasper up`` name are neither read nor reached, and a model
that answers by rules stands in for a real one.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from rich.console import Console
from rich.markdown import Markdown
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from clasper_worker.config.settings import read_running_stack
from clasper_worker.devkit.local_stack.bare_environment import bare_environment
from clasper_worker.prompt.sanitize import unfence_data

HERE = Path(__file__).parent
REPO = HERE.parent
START_SECONDS = 90.0
# Ports that nothing else expects anybody on.
UP = ("up", "--ephemeral", "--no-flower", "--port=0", "--broker-port=0", "--backend-port=0",
      "--model-port=0")  # fmt: skip
open_url = build_opener(ProxyHandler({})).open
console = Console(width=min(Console().width, 110), highlight=False)


class DemoError(Exception):
    """The demo did not show what it set out to."""


@dataclass(frozen=True)
class Way:
    """One way to enqueue a turn, and the turn to send that way."""

    title: str
    command: str
    request: dict[str, Any]
    word: str


@dataclass(frozen=True)
class Stack:
    """The running stack: its folder, the variables its processes got, and its addresses."""

    folder: Path
    environment: dict[str, str]
    urls: dict[str, str]


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """Start ``clasper up`` and stop it again."""
    environment = bare_environment(os.environ)
    environment |= {
        "HOME": str(folder),
        "CLASPER_STATE_DIR": str(folder / "state"),
        "CLASPER_WORKSPACE": str(REPO / "workspace"),
    }
    log_path = folder / "up.log"
    with log_path.open("wb") as log:
        up = subprocess.Popen(
            [sys.executable, "-m", "clasper_worker", *UP],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,  # where no .env lies
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while (state := read_running_stack(folder / "state")) is None:
            if up.poll() is not None or time.monotonic() > deadline:
                console.print(log_path.read_text(errors="replace")[-6000:], markup=False)
                raise DemoError("`clasper up` did not start; its log is above")
            time.sleep(0.1)
        environment |= state["environment"]
        yield Stack(folder, environment, state["urls"])
    finally:
        up.send_signal(signal.SIGINT)
        try:
            code = up.wait(timeout=60)
        except subprocess.TimeoutExpired:
            up.kill()
            code = -signal.SIGKILL
        if code != 0:
            console.print(log_path.read_text(errors="replace")[-6000:], markup=False)
            raise DemoError(f"`clasper up` ended with exit code {code}; its log is above")


def run_json(stack: Stack, *command: str) -> Any:
    """Run a program of its own and read the JSON it prints."""
    done = subprocess.run(
        [sys.executable, *command],
        env=stack.environment,
        capture_output=True,
        text=True,
        cwd=stack.folder,
        check=False,
    )
    if done.returncode != 0:
        raise DemoError(f"{command[0]} failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)


def post(url: str, body: dict[str, Any]) -> Any:
    """POST JSON with nothing but the standard library: any language can do this."""
    headers = {"Content-Type": "application/json"}
    request = Request(url, data=json.dumps(body).encode(), headers=headers)
    with open_url(request, timeout=120) as answer:
        return json.load(answer)


def make_ways(user: str) -> tuple[Way, ...]:
    """Three turns of one user, each with a random word of its own."""
    words = [f"{name}-{secrets.token_hex(4)}" for name in ("heron", "otter", "lynx")]
    thread = {"user_id": user, "task_title": "Autumn launch"}
    return (
        Way(
            "Plain Celery: app.send_task by name",
            'app.send_task("clasper.send", kwargs={…}, queue="clasper")',
            {
                **thread,
                "agent_role": "writer",
                "message": f'Create a task called "Draft the {words[0]} newsletter", then list my'
                " tasks.",
            },
            words[0],
        ),
        Way(
            "Command line: clasper send",
            f"clasper send --user {user} --role researcher --plan …",
            {
                **thread,
                "agent_role": "researcher",
                "message": f"Interview customers about {words[1]}. Ask five of them what they"
                " miss. Write up what they say; share it on Friday.",
            },
            words[1],
        ),
        Way(
            "HTTP: POST /api/agents/send",
            "curl -d '{…}' http://…/api/agents/send?wait=60",
            {
                **thread,
                "session_key": f"user:{user}:writer",
                "message": f"Note that {words[2]} is our code name. And what time is it?",
            },
            words[2],
        ),
    )


def conversation(ways: tuple[Way, ...], results: list[dict[str, Any]]) -> list[dict[str, str]]:
    """What was said so far, as a backend that keeps the conversation passes it along."""
    messages = []
    for way, result in zip(ways, results, strict=False):
        messages.append({"role": "user", "content": way.request["message"]})
        messages.append({"role": "assistant", "content": result["response"]})
    return messages


def send(stack: Stack, number: int, way: Way) -> dict[str, Any]:
    """Enqueue one turn its own way and wait for its result."""
    request = way.request
    if number == 1:
        program = str(HERE / "enqueue_from_celery.py")
        result = run_json(stack, program, json.dumps(request))
    elif number == 2:
        options = ["--user", request["user_id"], "--role", request["agent_role"], "--plan"]
        options += ["--task-title", request["task_title"], "--json", request["message"]]
        result = run_json(stack, "-m", "clasper_worker", "send", *options)
    else:
        result = post(f"{stack.urls['shim']}/api/agents/send?wait=60", request)
    if not isinstance(result, dict) or result.get("status") != "ok":
        raise DemoError(f"{way.title}: the turn did not end well: {result}")
    return result


def model_requests(stack: Stack, word: str) -> list[dict[str, Any]]:
    """What the offline model was sent in the turn of this word."""
    server = stack.urls["model"].removesuffix("/v1")
    with open_url(f"{server}/requests?limit=50", timeout=10) as answer:
        recorded = json.load(answer)["requests"]
    bodies = [entry["body"] for entry in recorded]
    return [body for body in bodies if word in _text(_newest_from_person(body))]


def _newest_from_person(body: dict[str, Any]) -> dict[str, Any]:
    return next(item for item in reversed(body["messages"]) if item["role"] == "user")


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else json.dumps(content)


def _result(message: dict[str, Any]) -> str:
    """A tool's result without the fence that marks it as data for the model."""
    return unfence_data(_text(message))


def tool_lines(requests: list[dict[str, Any]]) -> list[Text]:
    """The tool calls of a turn and what came of them, from the model's last request."""
    longest = max(requests, key=lambda body: len(body["messages"]))["messages"]
    results = {item["tool_call_id"]: _result(item) for item in longest if item["role"] == "tool"}
    lines = []
    for message in longest:
        for call in message.get("tool_calls") or ():
            function = call["function"]
            line = Text.assemble(("  ⚙ ", "yellow"), (function["name"], "bold yellow"))
            line.append(f"({_shorten(function['arguments'])})", style="yellow")
            line.append(f"\n      → {_shorten(results.get(call['id'], '…'))}", style="dim")
            lines.append(line)
    return lines


def _shorten(text: str, limit: int = 150) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def show_turn(number: int, way: Way, result: dict[str, Any], tools: list[Text]) -> None:
    """Print one turn: what was asked, what was called, what was answered."""
    console.print()
    console.rule(f"[bold]{number}. {way.title}", align="left", style="cyan")
    console.print(Text(f"  {way.command}", style="dim"))
    console.print(Panel(Text(way.request["message"]), title="person", title_align="left"))
    for line in tools:
        console.print(line)
    role = way.request.get("agent_role") or way.request["session_key"].rpartition(":")[2]
    console.print(
        Panel(Markdown(result["response"]), title=f"agent ({role})", title_align="left",
              border_style="green")
    )  # fmt: skip
    cost = result["cost"]
    price = cost.get("reason") if cost["totalCost"] is None else f"${cost['totalCost']:.6f}"
    usage = result["usage"]
    console.print(
        Text(
            f"  {cost['model']} · {usage['prompt_tokens']} + {usage['completion_tokens']} tokens ·"
            f" {result['tool_calls']} tool calls · {price}",
            style="dim",
        )
    )


def verify(stack: Stack, ways: tuple[Way, ...], results: list[dict[str, Any]]) -> list[str]:
    """Have another process read the backend; return what it did not find there."""
    user, task_id = ways[0].request["user_id"], results[0]["task_id"]
    found = run_json(stack, str(HERE / "read_backend.py"), user, task_id)
    show_backend(found)
    posted = [message["content"] for message in found["messages"]]
    missing = []
    for way, result in zip(ways, results, strict=True):
        if posted.count(result["response"]) != 1:
            missing.append(f"{way.title}: its reply is not in the backend exactly once")
        if way.word not in result["response"]:
            missing.append(f"{way.title}: the word {way.word} did not come back in the reply")
        if not model_requests(stack, way.word):
            missing.append(f"{way.title}: the word {way.word} did not reach the model")
    if not any(document["content"] == results[1]["response"] for document in found["documents"]):
        missing.append("the plan was not saved as a document")
    if not any(ways[0].word in task["title"] for task in found["tasks"]):
        missing.append("the task that the agent was asked to create is not there")
    return missing


def show_backend(found: dict[str, Any]) -> None:
    """Print what lies in the backend."""
    console.print()
    console.rule("[bold]What now lies in the backend", align="left", style="cyan")
    console.print(
        Text("  read over HTTP by another process, which knows nothing else", style="dim")
    )
    table = Table(box=None, pad_edge=True, show_header=True, header_style="bold")
    table.add_column("kind", style="cyan", no_wrap=True)
    table.add_column("by", no_wrap=True)
    table.add_column("content", overflow="fold")
    for task in found["tasks"]:
        table.add_row("task", task["status"], Text(task["title"]))
    for message in found["messages"]:
        first = next(line for line in message["content"].splitlines() if line.strip())
        table.add_row("message", message.get("agent_role") or "", Text(_shorten(first, 90)))
    for document in found["documents"]:
        lines = f"{document['title']} ({len(document['content'])} characters)"
        table.add_row("document", document["doc_type"], Text(lines))
    console.print(table)


def main() -> int:
    """Run the demo; the exit code."""
    started = time.monotonic()
    console.print(
        "[bold]Clasper Worker[/bold]: starting Redis, a worker, a backend, an offline model …"
    )
    console.print(
        Text("  a world of its own: no .env, key or server of yours is used", style="dim")
    )
    folder = tempfile.TemporaryDirectory(prefix="clasper-demo-")
    with folder as path, running_stack(Path(path)) as stack:
        console.print(f"ready after {time.monotonic() - started:.1f} s:")
        for name, url in stack.urls.items():
            console.print(Text(f"  {name:<12}{url}", style="dim"))
        ways = make_ways(f"demo-{secrets.token_hex(3)}")
        results: list[dict[str, Any]] = []
        for number, way in enumerate(ways, start=1):
            if number == len(ways):
                way.request["messages"] = conversation(ways, results)
            result = send(stack, number, way)
            show_turn(number, way, result, tool_lines(model_requests(stack, way.word)))
            results.append(result)
        missing = verify(stack, ways, results)
    console.print()
    for problem in missing:
        console.print(Text(f"✗ {problem}", style="bold red"))
    if missing:
        return 1
    console.print(
        f"[bold green]✓[/bold green] 3 turns, each enqueued another way, each reply found in the"
        f" backend. {time.monotonic() - started:.1f} s in all."
    )
    console.print(
        Text(
            "Next: `make up` keeps it all running, with the model and backend that you configure;"
            " README.md goes on from there.",
            style="dim",
        )
    )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DemoError as exc:
        console.print(Text(f"✗ {exc}", style="bold red"))
        sys.exit(1)
