"""A row's verdict and how it is told."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.records import Disturbance, RowRecord
from tests.chaos.report import BEGIN, END, describe_run, markdown, put_into, write_json
from tests.chaos.results import judge
from tests.chaos.sample import call, end, good_record, post

GOOD = good_record()
RUN = describe_run(7, "7.2.4", {"turns": 20})


def test_a_row_in_which_all_went_well_breaks_no_promise() -> None:
    result = judge(GOOD, "A row")
    assert result.broken == ()
    assert (result.turns, result.completed) == (3, 3)


@pytest.mark.parametrize(
    ("falsified", "promise"),
    [
        (replace(GOOD, posts=(), ends=()), "lost"),
        (replace(GOOD, ends=GOOD.ends[1:]), "unreported"),
        (replace(GOOD, posts=(*GOOD.posts, post("s000.00", 9.0))), "doubled"),
        (replace(GOOD, ends=(*GOOD.ends[1:], end("s000.00", response="?"))), "wrong"),
        (replace(GOOD, calls=(*GOOD.calls, call("s000.00", 9.0))), "repeated"),
        (replace(GOOD, posts=tuple(replace(p, at=-p.at) for p in GOOD.posts)), "disorder"),
        (replace(GOOD, ends=(*GOOD.ends[1:], end("s000.00", state="FAILURE"))), "failed"),
    ],
)
def test_a_falsified_row_breaks_its_promise_and_says_where(
    falsified: RowRecord, promise: str
) -> None:
    result = judge(falsified, "A row")
    assert promise in result.broken
    assert any(line.startswith(f"{promise}: s0") for line in result.evidence)
    assert getattr(result, promise) > 0


def test_a_turn_that_no_check_speaks_of_but_that_is_not_completed_breaks_the_row() -> None:
    other = end("s000.00", celery_id="other", turn_id="another")
    result = judge(replace(GOOD, ends=(*GOOD.ends, other)), "A row")
    assert result.broken == ("completed",)


def test_a_worker_that_ended_by_itself_breaks_the_row() -> None:
    assert judge(replace(GOOD, crashed=("w1",)), "A row").broken == ("crashed",)


def test_a_recovery_beyond_the_limit_breaks_the_row() -> None:
    outage = Disturbance("backend: down", 0.0, 1.0)
    record = replace(GOOD, disturbances=(outage,))
    assert judge(record, "A row", recovery_limit=1.0).broken == ("recovery",)
    assert judge(record, "A row", recovery_limit=1.2).broken == ()


def test_a_row_that_may_repeat_calls_counts_them_and_breaks_nothing() -> None:
    record = replace(GOOD, calls=(*GOOD.calls, call("s000.00", 9.0)))
    result = judge(record, "A row", allowed=("repeated",))
    assert (result.repeated, result.broken) == (1, ())


def test_the_table_has_a_line_for_each_row_and_replaces_the_one_before(tmp_path: Path) -> None:
    document = tmp_path / "reliability.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", "utf-8")
    for _ in range(2):
        put_into(document, markdown([judge(GOOD, "A row"), judge(GOOD, "Another")], RUN))
    text = document.read_text("utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count("| A row |") == text.count("| Another |") == 1
    header, line, *rows = [row for row in text.splitlines() if row.startswith("|")]
    assert {row.count("|") for row in (header, line, *rows)} == {header.count("|")}


def test_a_document_without_markers_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "reliability.md"
    document.write_text("text", "utf-8")
    with pytest.raises(ValueError, match="chaos:begin"):
        put_into(document, "table")


def test_the_json_file_has_every_figure(tmp_path: Path) -> None:
    path = tmp_path / "reliability.json"
    write_json(path, [judge(GOOD, "A row")], RUN)
    written = json.loads(path.read_text("utf-8"))
    assert written["run"]["seed"] == 7
    assert written["rows"][0]["lost"] == 0
