"""The results as one picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report import CURVES, WAYS

_OURS, _OTHERS = "#1f6f8b", "#b8c4cc"


def draw(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``performance.png`` and ``performance.svg``; returns where they are."""
    with mpl.rc_context({"svg.hashsalt": "clasper", "font.size": 9}):
        figure = Figure(figsize=(11, 7.5), layout="constrained")
        axes = figure.subplots(2, 2)
        ways = results["throughput"]
        _bars(axes[0][0], ways, "turns_per_second", "Turns a second, model without latency", ",.0f")
        _bars(axes[0][1], ways, "cpu_ms_per_turn", "CPU a turn, ms", ".2f")
        _in_flight(axes[1][0], results["in_flight"])
        _growth(axes[1][1], results["growth"])
        machine = results["machine"]
        figure.suptitle(
            f"Clasper Worker on {machine['cores']} cores, everything on one machine,"
            f" {machine['date']}"
        )
        paths = [folder / "performance.png", folder / "performance.svg"]
        figure.savefig(paths[0], dpi=130)
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def _bars(axes: Axes, ways: Mapping[str, Any], figure: str, title: str, form: str) -> None:
    names = [name for name in reversed(WAYS) if name in ways]
    values = [ways[name][figure] for name in names]
    colours = [_OURS if name.startswith("asyncio") else _OTHERS for name in names]
    bars = axes.barh([WAYS[name].replace("`", "") for name in names], values, color=colours)
    axes.bar_label(bars, [format(value, form) for value in values], padding=3)
    axes.set_title(title)
    axes.margins(x=0.14)
    _plain(axes)


def _in_flight(axes: Axes, measured: Mapping[str, Any]) -> None:
    names = ("p50", "p95", "p99")
    points = measured["points"]
    width = 0.8 / len(points)
    for index, (slots, point) in enumerate(points.items()):
        values = [point["above_model_ms"][name] for name in names]
        places = [place + index * width for place in range(len(names))]
        label = (
            f"{int(slots):,} slots: {point['turns_per_second_while_full']:,.0f} turns/s,"
            f" {point['resident_mb']['peak']:.0f} MB"
        )
        colour = (_OURS, _OTHERS)[index % 2]
        bars = axes.bar(places, values, width * 0.92, label=label, color=colour)
        axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=2)
    axes.set_xticks([place + width * (len(points) - 1) / 2 for place in range(len(names))], names)
    axes.set_title(f"In flight: ms above the model's {measured['model_seconds']:g} s, one process")
    axes.legend(frameon=False, loc="upper left")
    axes.margins(y=0.25)
    _plain(axes)


def _growth(axes: Axes, curves: Mapping[str, Any]) -> None:
    for name, label in CURVES.items():
        sizes = [max(int(size), 1) for size in curves[name]]
        costs = [point["cpu_ms_per_turn"] for point in curves[name].values()]
        axes.plot(sizes, costs, marker="o", markersize=4, label=label)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_title("CPU a turn in ms, as things grow (0 is drawn at 1)")
    axes.legend(frameon=False)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
