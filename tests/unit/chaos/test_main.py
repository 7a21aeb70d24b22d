"""The command line of the matrix."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.chaos.__main__ import main
from tests.chaos.options import Options
from tests.chaos.report import BEGIN, END, describe_run, markdown, write_json
from tests.chaos.results import judge
from tests.chaos.rows import ROWS, find_rows
from tests.chaos.sample import good_record


def test_every_row_has_a_name_of_its_own_and_is_listed() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    listed = CliRunner().invoke(main, ["--list"]).output
    assert [line.split()[0] for line in listed.splitlines()] == names


def test_rows_are_found_by_name_in_the_order_of_the_matrix() -> None:
    assert [row.name for row in find_rows(("redis-kill", "kill"))] == ["kill", "redis-kill"]
    assert find_rows(()) == ROWS


def test_a_row_that_is_not_there_is_named() -> None:
    result = CliRunner().invoke(main, ["--row", "nonesuch"])
    assert result.exit_code == 2
    assert "nonesuch" in result.output


@pytest.mark.parametrize(
    "field", ["outage_seconds", "visibility_seconds", "kills", "many", "notified", "takeovers"]
)
def test_the_short_form_is_shorter(field: str) -> None:
    assert getattr(Options().quick(), field) < getattr(Options(), field)


def test_earlier_results_are_written_into_a_document_again(tmp_path: Path) -> None:
    results, run = [judge(good_record(), "A row")], describe_run(7, "7.2.4", {"turns": 20})
    write_json(tmp_path / "results.json", results, run)
    document = tmp_path / "document.md"
    document.write_text(f"Before\n{BEGIN}\n{END}\nAfter\n")
    render = ["--render", str(tmp_path / "results.json")]
    assert CliRunner().invoke(main, render).exit_code == 2
    assert CliRunner().invoke(main, [*render, "--document", str(document)]).exit_code == 0
    assert document.read_text() == f"Before\n{BEGIN}\n{markdown(results, run)}\n{END}\nAfter\n"
