"""What `clasper worker` and `clasper beat` refuse before anything is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TASKS = "--max-tasks-per-child"
MORE = pytest.mark.minutes  # each is a process


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end; without a broker nothing that it starts would end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "clasper_worker", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "CELERY_BROKER_URL": "redis://127.0.0.1:1/0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        pytest.param(("worker", "--processes", "1", "--bogus"), "--bogus", marks=MORE),
        (("worker", "--processes", "3", "--bogus"), "--bogus"),
        pytest.param(("worker", "--processes", "3", "-c", "x"), "--concurrency", marks=MORE),
        pytest.param(("worker", "--processes", "0"), "--processes", marks=MORE),
        (("worker", "--processes", "3", "--autoscale", "9,1"), "-c instead of --autoscale"),
        pytest.param(
            ("worker", "--processes", "3", TASKS, "9"), "worker_max_tasks_per_child", marks=MORE
        ),
        (("worker", "--max-memory-per-child", "9"), "worker_max_memory_per_child"),
        (("beat", "--bogus"), "--bogus"),
    ],
)
def test_what_cannot_be_run_exits_2_and_starts_no_process(
    tmp_path: Path, arguments: tuple[str, ...], named: str
) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2, done.stderr
    assert named in done.stderr
    assert f"clasper {arguments[0]}" in done.stderr.replace("python -m clasper_worker", "clasper")
    assert "supervised" not in done.stderr
    assert "Traceback" not in done.stderr
