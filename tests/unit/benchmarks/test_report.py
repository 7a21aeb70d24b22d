"""The benchmark's results as tables."""

from pathlib import Path
from typing import Any

import pytest
from report import BEGIN, END, markdown, put_into

MACHINE = {
    "date": "2026-01-02",
    "cores": 2,
    "processor": "P",
    "python": "3.11.7",
    "redis_server": "6.2.14",
    "python_loop_ms": 30.0,
    "foreign_load": 0.05,
    "versions": {"celery": "5.7.0"},
}
NOTIFICATIONS = {
    "users": 200,
    "notifications": 1000,
    "processes": 2,
    "model_seconds": 2.0,
    "one_after_another_seconds": 2000.0,
    "least_seconds": 10.0,
    "trials": 3,
    "listed_seconds": 3.94,
    "answered_seconds": 15.71,
    "acknowledged_seconds": 15.83,
    "cpu_ms_each": 7.25,
    "acknowledged_seconds_range": [15.2, 16.6],
}
FAN_OUT = {
    "agents": 10_000,
    "interval_seconds": 1800,
    "watched_seconds": 119.9,
    "enqueued": 667,
    "share_of_a_core": 0.021,
    "beat_share": 0.003,
    "worker_share": 0.018,
    "idle_worker_share": 0.004,
    "redis_share": 0.005,
}


def tables(**measured: Any) -> list[str]:
    return markdown({"machine": MACHINE, **measured}).splitlines()


def test_what_was_not_measured_has_no_table() -> None:
    assert len(tables()) == 1


@pytest.mark.parametrize(
    ("measured", "row"),
    [
        (
            {"notifications": NOTIFICATIONS},
            "| 1,000 | 200 | 3.9 | 15.7 | 15.8 | 15.2 to 16.6 | 10 | 2,000 | 7.2 |",
        ),
        ({"fan_out": FAN_OUT}, "| 10,000 | 667 | 0.3% | 1.8% | 0.4% | 2.1% | 0.5% |"),
    ],
)
def test_a_table_has_a_row_as_wide_as_its_head(measured: dict[str, Any], row: str) -> None:
    *_, head, rule, last = tables(**measured)
    assert last == row
    assert head.count("|") == rule.count("|") == row.count("|")


def test_only_what_stands_between_the_marks_is_replaced(tmp_path: Path) -> None:
    document = tmp_path / "d.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    put_into(document, "new")
    assert document.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    document.write_text("no marks")
    with pytest.raises(ValueError, match="has no"):
        put_into(document, "new")
