"""The outcomes as a table, JSON and JUnit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from clasper_worker.conformance.run import Outcome
from clasper_worker.errors import ConfigurationError

_SIGNS = {"passed": "ok  ", "failed": "FAIL", "skipped": "skip"}


def counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many passed, failed and were skipped."""
    found = Counter(one.status for one in outcomes)
    return {status: found[status] for status in ("passed", "failed", "skipped")}


def as_table(outcomes: Sequence[Outcome]) -> str:
    """For a person: a line a check, and under a failed one what, instead of what, and why."""
    lines = []
    for one in outcomes:
        note = f"  ({one.came})" if one.status == "skipped" else ""
        lines.append(f"{_SIGNS[one.status]}  {one.check.name}{note}")
        if one.status == "failed":
            lines += [
                f"        the contract wants: {one.check.wants}",
                f"        what came:          {_printable(one.came)}",
                f"        why it matters:     {one.check.why}",
            ]
    lines.append(", ".join(f"{number} {status}" for status, number in counts(outcomes).items()))
    return "\n".join(lines)


def as_json(url: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """For programs."""
    return {
        "contract_version": "v1",
        "url": url,
        "summary": counts(outcomes),
        "checks": [
            {
                "name": one.check.name,
                "feature": one.check.feature,
                "status": one.status,
                "wants": one.check.wants,
                "came": one.came,
                "why": one.check.why,
                "seconds": round(one.seconds, 3),
            }
            for one in outcomes
        ],
    }


def write_reports(folder: Path, url: str, outcomes: Sequence[Outcome]) -> None:
    """``conformance.json`` and ``conformance.xml`` (JUnit).

    Raises:
        ConfigurationError: they cannot be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(as_json(url, outcomes), indent=2)
        (folder / "conformance.json").write_text(f"{text}\n", encoding="utf-8")
        (folder / "conformance.xml").write_bytes(_junit(outcomes))
    except OSError as exc:
        raise ConfigurationError(
            f"CONFORMANCE_REPORT_DIR ({folder}) cannot be written to: {exc.strerror}; set another",
            {"variable": "CONFORMANCE_REPORT_DIR"},
        ) from exc


def _junit(outcomes: Sequence[Outcome]) -> bytes:
    found = counts(outcomes)
    suite = ET.Element(
        "testsuite",
        name="clasper conformance v1",
        tests=str(len(outcomes)),
        failures=str(found["failed"]),
        skipped=str(found["skipped"]),
        errors="0",
        time=f"{sum(one.seconds for one in outcomes):.3f}",
    )
    for one in outcomes:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=f"contract.v1.{one.check.section}",
            name=one.check.name,
            time=f"{one.seconds:.3f}",
        )
        came = _printable(one.came)
        if one.status == "failed":
            failure = ET.SubElement(case, "failure", message=came)
            failure.text = f"The contract wants: {one.check.wants}\nWhy: {one.check.why}"
        elif one.status == "skipped":
            ET.SubElement(case, "skipped", message=came)
    return ET.tostring(suite, encoding="utf-8", xml_declaration=True)


def _printable(text: str) -> str:
    """Neither XML nor a terminal takes control characters of a backend's answer."""
    return "".join(c if c.isprintable() else " " for c in text)
