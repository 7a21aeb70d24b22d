"""The processes of the stack: the command line, the probe and the stop of each."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from clasper_worker.devkit.local_stack.ports import LOOPBACK
from clasper_worker.devkit.local_stack.probes import (
    HttpAnswers,
    PortListens,
    RedisAnswers,
    WorkerAnswers,
)
from clasper_worker.devkit.local_stack.process import Layer, ProcessSpec
from clasper_worker.devkit.local_stack.redis_binary import RedisBinary, redis_command

# A turn may take minutes. This is how long a stop waits for those that run; what is cut off stays
# in Redis and runs again at the next start.
_WORKER_STOP = ((signal.SIGTERM, 30.0), (signal.SIGQUIT, 5.0))


def redis_process(binary: RedisBinary, port: int, data_dir: Path) -> ProcessSpec:
    """The stack's own broker."""
    return ProcessSpec(
        "redis",
        redis_command(binary, port=port, data_dir=data_dir),
        Layer.BROKER,
        ready=RedisAnswers(port, tells_pid=binary.durable),
    )


def backend_process(port: int, database: str, environment: Mapping[str, str]) -> ProcessSpec:
    """The reference backend; ``database`` is a path or ``:memory:``.

    Nobody registers agents there, so it does so by itself: whoever has replied once is looked
    after, by heartbeats and standups, as on a real backend.
    """
    return ProcessSpec(
        "backend",
        _clasper("backend", "--register-agents", "--port", str(port), "--database", database),
        Layer.BACKEND,
        environment,
        HttpAnswers(f"http://{LOOPBACK}:{port}/health"),
    )


def offline_model_process(port: int, environment: Mapping[str, str]) -> ProcessSpec:
    """The offline model."""
    return ProcessSpec(
        "model",
        _clasper("offline-model", "--port", str(port)),
        Layer.MODEL,
        environment,
        HttpAnswers(f"http://{LOOPBACK}:{port}/health"),
    )


def worker_process(
    node: str,
    broker_url: str,
    processes: int,
    concurrency: int | None,
    environment: Mapping[str, str],
) -> ProcessSpec:
    """A worker named ``node`` that serves every queue, in one process or several."""
    slots = () if concurrency is None else ("--concurrency", str(concurrency))
    return ProcessSpec(
        "worker",
        _clasper("worker", "--processes", str(processes), "--hostname", node, *slots),
        Layer.WORKER,
        environment,
        WorkerAnswers(broker_url, node, processes),
        _WORKER_STOP,
    )


def beat_process(environment: Mapping[str, str]) -> ProcessSpec:
    """Beat; it listens nowhere, so it is ready as soon as it runs."""
    return ProcessSpec("beat", _clasper("beat"), Layer.FRONT, environment)


def shim_process(port: int, url: str, environment: Mapping[str, str]) -> ProcessSpec:
    """The HTTP shim, reached at ``url``."""
    return ProcessSpec(
        "shim",
        _clasper("serve", "--port", str(port)),
        Layer.FRONT,
        environment,
        HttpAnswers(f"{url}/health"),
    )


def flower_process(port: int, environment: Mapping[str, str]) -> ProcessSpec:
    """Flower; it shows every task and has no login of its own, so on the loopback alone.

    It logs errors only: what it says while the worker is still starting is noise.
    """
    celery = (sys.executable, "-m", "celery", "--quiet", "-A", "clasper_worker")
    return ProcessSpec(
        "flower",
        (*celery, "flower", f"--address={LOOPBACK}", f"--port={port}", "--logging=error"),
        Layer.FRONT,
        environment,
        PortListens(port),
    )


def _clasper(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "clasper_worker", *arguments)
