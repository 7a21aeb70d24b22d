"""Counters of the process."""

from __future__ import annotations

import subprocess
import sys
import threading

from prometheus_client import REGISTRY

from clasper_worker.observability.metrics import _LateCounter

ENQUEUING = """
import clasper_worker.client
from prometheus_client import REGISTRY
print(sorted(family.name for family in REGISTRY.collect() if family.name.startswith("clasper")))
"""


def test_a_program_that_only_enqueues_has_none_of_our_figures_among_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENQUEUING], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_threads_that_count_first_at_the_same_moment_count_one_counter() -> None:
    counter = _LateCounter("clasper_test_late_total", "Of the test.", "label")
    together = threading.Barrier(8)

    def count() -> None:
        together.wait()
        counter.add("a", number=2)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert REGISTRY.get_sample_value("clasper_test_late_total", {"label": "a"}) == 16
