from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, Counter

from clasper_worker.errors import ConfigurationError
from clasper_worker.observability.exporter import (
    FOLDER_VARIABLE,
    figures,
    registry_to_serve,
    serve_metrics,
    shared_folder,
)

COUNTING = """
import sys
from prometheus_client import Counter
Counter("clasper_test_shared_total", "Of the test.").inc(float(sys.argv[1]))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_process_of_its_own_serves_its_registry_until_it_is_stopped() -> None:
    counter = Counter("clasper_test_alone_total", "Of the test.")
    port = free_port()
    stop = serve_metrics("127.0.0.1", port)
    try:
        counter.inc(3)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        stop()
        REGISTRY.unregister(counter)
    assert "clasper_test_alone_total 3.0" in text
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_the_figures_of_processes_that_share_a_folder_are_added_up() -> None:
    with shared_folder() as environment:
        for amount in ("2", "5"):
            subprocess.run(
                [sys.executable, "-c", COUNTING, amount],
                env={**os.environ, **environment},
                check=True,
            )
        text = figures().decode()
    assert "clasper_test_shared_total 7.0" in text


def test_the_shared_folder_is_gone_afterwards_and_the_process_serves_its_own_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    with shared_folder() as environment:
        folder = Path(environment[FOLDER_VARIABLE])
        assert folder.is_dir()
        assert registry_to_serve() is not REGISTRY
    assert not folder.exists()
    assert registry_to_serve() is REGISTRY


def test_a_port_that_is_taken_is_an_error_that_names_the_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match="CLASPER_METRICS_PORT"):
            serve_metrics("127.0.0.1", port)
