"""Sparing CPU time."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from clasper_worker.engine.processes.cpu import collect_rarely, usable_cpus


@pytest.fixture(autouse=True)
def _thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_cycles_are_looked_for_less_often_than_by_default() -> None:
    gc.set_threshold(700, 10, 10)
    collect_rarely()
    assert gc.get_threshold() == (10_000, 10, 10)


@pytest.mark.parametrize("young", [0, 50_000])
def test_a_process_that_has_chosen_otherwise_is_left_alone(young: int) -> None:
    gc.set_threshold(young, 5, 5)
    collect_rarely()
    assert gc.get_threshold() == (young, 5, 5)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot do it")
def test_a_process_is_kept_on_one_cpu() -> None:
    cpu = usable_cpus()[-1]
    script = (
        "from clasper_worker.engine.processes.cpu import run_on, usable_cpus\n"
        f"run_on({cpu})\n"
        "print(usable_cpus())"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == f"[{cpu}]"
