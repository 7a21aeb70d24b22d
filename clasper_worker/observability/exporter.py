"""The figures of a worker over HTTP, as Prometheus scrapes them.

A worker of one process serves its own registry. Several processes that are one worker (a group, or
prefork's children) write theirs to files of one folder, named by prometheus-client's own
``PROMETHEUS_MULTIPROC_DIR``, and one of them serves the sum.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    generate_latest,
    start_http_server,
)
from prometheus_client.multiprocess import MultiProcessCollector

from clasper_worker.errors import ConfigurationError

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def registry_to_serve() -> CollectorRegistry:
    """The registry of this process or, where several share a folder, of all of them."""
    if FOLDER_VARIABLE not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return registry


def figures() -> bytes:
    """What a scrape gets now, in Prometheus' text format."""
    return generate_latest(registry_to_serve())


def serve_metrics(host: str, port: int) -> Callable[[], None]:
    """Serve the figures at ``/metrics`` from a daemon thread.

    Args:
        host: the address to listen on.
        port: the TCP port.

    Returns:
        What stops it.

    Raises:
        ConfigurationError: the port cannot be listened on.
    """
    try:
        server, thread = start_http_server(port, host, registry_to_serve())
    except OSError as exc:
        raise ConfigurationError(
            f"The worker's metrics cannot be served on {host}:{port} ({exc.strerror}): set"
            " CLASPER_METRICS_PORT to a free port, or to 0 to serve none",
            {"variable": "CLASPER_METRICS_PORT"},
        ) from None

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


@contextmanager
def shared_folder() -> Iterator[dict[str, str]]:
    """A folder for the figures of several processes, removed in the end.

    Yields:
        The environment that the processes need; it is set in this process too.
    """
    with tempfile.TemporaryDirectory(prefix="clasper-metrics-") as folder:
        before = os.environ.get(FOLDER_VARIABLE)
        os.environ[FOLDER_VARIABLE] = folder
        try:
            yield {FOLDER_VARIABLE: folder}
        finally:
            if before is None:
                del os.environ[FOLDER_VARIABLE]
            else:
                os.environ[FOLDER_VARIABLE] = before
