"""One static page on a run: curves, sample grids over the steps, the best and worst pairs, configuration and versions.

Reads what `journal` wrote and nothing else, so it can be made again at any time, also of a run that goes on.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jinja2
import matplotlib as mpl
from matplotlib.figure import Figure

from model_export.journal import EXTREMES

GRIDS: Final = 10
"""At most so many sample grids are shown, spread over the run; the folder holds all."""
_BLUE: Final = "#2563eb"


class NoRun(Exception):
    """The folder holds no run that has validated; the message names it."""


def write_report(folder: Path) -> Path:
    """Make `report.html` of a run's folder.

    Returns:
        The page: one file with its pictures inside, and no script.

    Raises:
        NoRun: the folder holds no run, or one that has not validated yet.
    """
    try:
        run, history, pairs = (
            json.loads((folder / name).read_text()) for name in ("run.json", "history.json", "pairs.json")
        )
    except FileNotFoundError as error:
        raise NoRun(f"{folder} holds no run that has validated: there is no {Path(error.filename).name}") from error
    except ValueError as error:
        raise NoRun(f"{folder} holds a damaged journal: {error}") from error
    if not history or not pairs:
        raise NoRun(f"{folder} holds a run that has not validated yet")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html").render(
        run=run,
        last=history[-1],
        best=max(history, key=lambda entry: entry["psnr"]),
        # plain words for a reader; the nested configuration as it was read
        config=json.dumps(run["config"], indent=2, ensure_ascii=False),
        losses=_chart(history, [name for name in history[-1] if name.startswith("loss/")], "loss", logarithmic=True),
        psnr=_chart(history, ["psnr"], "PSNR, dB"),
        ssim=_chart(history, ["ssim"], "SSIM"),
        samples=[(int(path.stem), _data_uri(path)) for path in _spread(sorted((folder / "samples").glob("*.png")))],
        worst=_rows(folder, pairs[:EXTREMES]),
        # a pair is not shown as one of the worst and of the best
        top=_rows(folder, pairs[EXTREMES:][-EXTREMES:][::-1]),
        pairs=len(pairs),
    )
    target = folder / "report.html"
    partial = target.with_name("report.html.partial")
    partial.write_text(page)
    partial.replace(target)
    return target


def _rows(folder: Path, pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**pair, "picture": _data_uri(folder / "pairs" / f"{pair['name']}.png")} for pair in pairs]


def _spread(paths: Sequence[Path]) -> list[Path]:
    if len(paths) <= GRIDS:
        return list(paths)
    # the first and the last are always among them
    return [paths[round(place * (len(paths) - 1) / (GRIDS - 1))] for place in range(GRIDS)]


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _chart(history: Sequence[Mapping[str, float]], names: Sequence[str], unit: str, logarithmic: bool = False) -> str:
    """Draw curves over the steps as an SVG element; a value that a step lacks leaves a gap."""
    # the SVG's element names are random otherwise, and the same run would give another page each time
    with mpl.rc_context({"svg.hashsalt": "pix2dslr", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        axes = figure.subplots()
        steps = [entry["step"] for entry in history]
        for name in names:
            values = [entry.get(name, float("nan")) for entry in history]
            colour = _BLUE if len(names) == 1 else None
            axes.plot(steps, values, label=name.removeprefix("loss/"), color=colour, linewidth=1.6, marker=".")
        if logarithmic and any(entry.get(name, 0) > 0 for entry in history for name in names):
            axes.set_yscale("log")
        if len(names) > 1:
            figure.legend(loc="outside right upper", frameon=False)
        axes.set_xlabel("step")
        axes.set_ylabel(unit)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        drawing = io.StringIO()
        figure.savefig(drawing, format="svg", transparent=True, metadata={"Date": None})
    svg = drawing.getvalue()
    return svg[svg.index("<svg") :]
