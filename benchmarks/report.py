"""Rows of a benchmark -> a table, JSON and a plot."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Row:
    """One comparison within one run.

    Attributes:
        what, baseline: what is compared with what.
        unit: of both values.
        value, against: of the one and of the other.
        judged: how: their `ratio`, or the `difference` value - against.
        reach: what is wanted of that, None where nothing is.
        at_least: whether `reach` is the least that is wanted, or the most.
    """

    what: str
    baseline: str
    unit: str
    value: float
    against: float
    judged: Literal["ratio", "difference"] = "ratio"
    reach: float | None = None
    at_least: bool = True

    @property
    def result(self) -> float:
        """The ratio or the difference."""
        return self.value / self.against if self.judged == "ratio" else self.value - self.against

    @property
    def reached(self) -> bool | None:
        """Whether it is as wanted, None where nothing is wanted."""
        if self.reach is None:
            return None
        return bool(self.result >= self.reach if self.at_least else self.result <= self.reach)


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out in Markdown."""
    lines = ["| what | | baseline | | result | reach |", "| --- | ---: | --- | ---: | ---: | --- |"]
    for row in rows:
        result = f"{row.result:.2f}" if row.judged == "ratio" else f"{row.result:+.1f} {row.unit}"
        reach = ""
        if row.reach is not None:
            sign = "≥" if row.at_least else "≤"
            wanted = f"{row.reach:g}" if row.judged == "ratio" else f"{row.reach:+g} {row.unit}"
            reach = f"{sign} {wanted}{'' if row.reached else ' **missed**'}"
        lines.append(
            f"| {row.what} | {row.value:.1f} {row.unit} | {row.baseline} | {row.against:.1f} {row.unit} "
            f"| {result} | {reach} |"
        )
    return "\n".join(lines)


def write_json(rows: Sequence[Row], curves: Mapping[str, Mapping[float, float]], path: Path) -> None:
    """Write the rows and the plotted curves."""
    entries = [{**asdict(row), "result": row.result, "reached": row.reached} for row in rows]
    path.write_text(json.dumps({"rows": entries, "curves": curves}, indent=1))


def plot(curves: Mapping[str, Mapping[float, float]], path: Path) -> None:
    """Draw seconds over megapixels and tiles a second over clients, both axes logarithmic.

    Args:
        curves: by name, `seconds: …` over megapixels or `tiles/s: …` over clients.
        path: a PNG or SVG.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, curve in curves.items():
        kind, _, label = name.partition(": ")
        axes = left if kind == "seconds" else right
        axes.loglog(list(curve), list(curve.values()), marker="o", label=label)
    left.set(xlabel="megapixels", ylabel="seconds", title="One JPEG over HTTP")
    right.set(xlabel="clients at a time", ylabel="tiles a second", title="Throughput")
    for axes in (left, right):
        axes.grid(visible=True, which="both", alpha=0.3)
        if axes.lines:
            axes.legend()
            ticks = sorted({x for line in axes.lines for x in line.get_xdata()})
            axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
            axes.minorticks_off()
            # whole decades: a curve's slope and distance can be read off, and are not blown up
            values = np.concatenate([line.get_ydata() for line in axes.lines])
            axes.set_ylim(10 ** np.floor(np.log10(values.min())), 10 ** np.ceil(np.log10(values.max())))
            axes.yaxis.set_major_formatter("{x:g}")
    figure.savefig(path, dpi=110)
