"""Panels and their series -> one picture, laid out as the dashboard's grid says."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.panels import Panel

COLUMNS: Final = 24
_CELL: Final = (0.62, 0.30)
"""Inches of a cell of the grid."""

_DPI: Final = 90
_COLOURS: Final = 128
_UNITS: Final = {
    "s": ("s", 1.0),
    "bytes": ("MiB", 2.0**-20),
    "percentunit": ("%", 100.0),
    "reqps": ("requests/s", 1.0),
    "ops": ("1/s", 1.0),
    "short": ("", 1.0),
    "none": ("", 1.0),
}
"""What Grafana calls them: name and factor."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Drawn:
    """A panel and what Prometheus answered.

    Attributes:
        panel: the panel.
        series: of each, its legend's template and Prometheus' `metric` and `values`.
        start: seconds since the epoch where the time axis begins.
    """

    panel: Panel
    series: list[tuple[str, dict[str, Any]]]
    start: float

    def curves(self) -> list[tuple[str, Floats, Floats]]:
        """Name, seconds since the start, and values in the unit that is shown, of each series."""
        factor = _UNITS[self.panel.unit][1]
        found = []
        for template, each in self.series:
            at, values = np.array([(float(at), float(value)) for at, value in each["values"]]).T
            found.append((_named(template, each["metric"]), at - self.start, values * factor))
        return found


def _named(template: str, labels: dict[str, str]) -> str:
    short = {**labels, "instance": labels.get("instance", "").rpartition(":")[2]}
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: short.get(found[1], ""), template)


def draw(drawn: Sequence[Drawn], path: Path) -> None:
    """Draw all panels into a PNG of few colours."""
    rows = max(each.panel.y + each.panel.h for each in drawn)
    figure = Figure(figsize=(COLUMNS * _CELL[0], rows * _CELL[1]), dpi=_DPI, facecolor="#f4f5f5")
    for each in drawn:
        panel = each.panel
        left, width = panel.x / COLUMNS, panel.w / COLUMNS
        bottom, height = 1 - (panel.y + panel.h) / rows, panel.h / rows
        if panel.kind == "row":
            figure.text(left + 0.005, bottom + height / 2, panel.title, va="center", size=11, weight="bold")
            continue
        x, y = 1 / COLUMNS, 1 / rows
        inner = (left + 0.62 * x, bottom + 1.7 * y, width - 0.8 * x, height - 2.8 * y)
        match panel.kind:
            case "stat":
                _stat(figure.add_axes((left + 0.1 * x, bottom + 0.1 * y, width - 0.2 * x, height - 1.2 * y)), each)
            case "table":
                _table(figure.add_axes((left + 0.1 * x, bottom + 0.1 * y, width - 0.2 * x, height - 1.2 * y)), each)
            case _:
                _time_series(figure.add_axes(inner), each)
        unit = _UNITS[panel.unit][0]
        title = panel.title + (f"  [{unit}]" if unit else "")
        figure.text(left + 0.2 * x, bottom + height - 0.25 * y, title, va="top", size=8, weight="bold")
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    Image.open(buffer).convert("RGB").quantize(_COLOURS).save(path, optimize=True)


def _stat(axes: Axes, drawn: Drawn) -> None:
    axes.set(xticks=[], yticks=[], facecolor="white")
    told = "no data"
    for _, at, values in drawn.curves():
        good = np.isfinite(values)
        axes.fill_between(at[good], 0, values[good], alpha=0.2, step="post")
        if good.any():
            told = f"{values[good][len(values[good]) // 2 :].mean():.3g}"
            axes.set_ylim(0, max(values[good].max() * 2, 1e-9))
    axes.text(0.5, 0.5, told, size=18, ha="center", va="center", transform=axes.transAxes)
    axes.text(0.98, 0.04, "mean of the 2nd half", size=5, ha="right", transform=axes.transAxes)


def _time_series(axes: Axes, drawn: Drawn) -> None:
    axes.set_facecolor("white")
    curves = drawn.curves()
    if drawn.panel.stacked and curves:
        grid = np.unique(np.concatenate([at for _, at, _ in curves]))
        base = np.zeros_like(grid)
        for name, at, values in curves:
            known = dict(zip(at, np.nan_to_num(values), strict=True))
            top = base + np.array([known.get(each, 0.0) for each in grid])
            axes.fill_between(grid, base, top, alpha=0.5, linewidth=0, label=name)
            base = top
    else:
        for name, at, values in curves:
            axes.plot(at, values, linewidth=0.9, label=name)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=6.5, length=2, pad=1)
    axes.grid(visible=True, alpha=0.25, linewidth=0.5)
    for side in axes.spines.values():
        side.set_linewidth(0.4)
    if curves:
        columns = min(len(curves), max(1, drawn.panel.w // 3))
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=columns, fontsize=6.5, frameon=False,
            handlelength=1.2, columnspacing=0.8, borderpad=0, labelspacing=0.15,
        )  # fmt: skip
        shown = [value for _, _, values in curves for value in values if math.isfinite(value)]
        if shown and max(shown) == 0:
            axes.set_ylim(0, 1)
    else:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", size=8, transform=axes.transAxes)


def _table(axes: Axes, drawn: Drawn) -> None:
    axes.set(xticks=[], yticks=[], facecolor="white")
    hidden = {"__name__", "job"}
    rows = [{name: value for name, value in each["metric"].items() if name not in hidden} for _, each in drawn.series]
    names = sorted({name for row in rows for name in row})
    for column, name in enumerate(names):
        lines = [name, *(row.get(name, "")[:24] for row in rows[:6])]
        for number, line in enumerate(lines):
            weight = "bold" if not number else "normal"
            axes.text(0.01 + column / max(len(names), 1), 0.9 - 0.14 * number, line, size=5.5, weight=weight, va="top")
