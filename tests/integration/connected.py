"""Backend, shim and worker that know one another, as `clasper up` connects them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

from tests.integration.forked import Forked
from tests.integration.turn.conftest import Processes, answers, free_port
from tests.waiting import until

KEY = "the-key-of-the-connected-shim"


@dataclass(frozen=True)
class Connected:
    """Where they are.

    Attributes:
        processes: to read what the backend has, and to start more.
        variables: by which others reach them.
    """

    backend_url: str
    shim_url: str
    processes: Processes
    variables: dict[str, str] = field(repr=False)


@contextmanager
def connected(processes: Processes, *model_options: str, **extra: str) -> Iterator[Connected]:
    """Start them, with a model of their own.

    Args:
        processes: the Redis that they use, and how to start processes.
        model_options: of the offline model.
        extra: further variables of theirs.
    """
    ports = {name: free_port() for name in ("backend", "model", "shim")}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    variables = {
        "BACKEND_URL": urls["backend"],
        "AGENT_DAEMON_URL": urls["shim"],
        "AGENT_DAEMON_API_KEY": KEY,
        "OPENAI_BASE_URL": f"{urls['model']}/v1",
        **extra,
    }
    commands = {
        "backend": ("backend", "--database", ":memory:"),
        "model": ("offline-model", *model_options),
        "shim": ("serve",),
    }

    def running(name: str) -> AbstractContextManager[Forked]:
        command = ("clasper_worker", *commands[name], "--port", str(ports[name]))
        return processes.running(f"connected-{name}", *command, **variables)

    with (
        running("backend"),
        running("model"),
        running("shim"),
        processes.worker("connected", **variables),
    ):
        for name, url in urls.items():
            log = processes.logs[f"connected-{name}"]
            until(lambda url=url: answers(f"{url}/health"), name, log)
        its = replace(processes, backend_url=urls["backend"])
        yield Connected(urls["backend"], urls["shim"], its, variables)
