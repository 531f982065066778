"""A report as Markdown, JSON and one HTML page that needs nothing else. Pure."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Final

from model_export.evaluate import Report, Row


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        title: its heading.
        meaning: what it says, in a line.
        cell: its text for a row, empty where nothing was measured.
    """

    title: str
    meaning: str
    cell: Callable[[Row], str]


def _number(form: str, value: float | None) -> str:
    return "" if value is None else format(value, form)


def _kid(row: Row) -> str:
    if row.kid is None:
        return ""
    error = "" if row.kid.error is None else f" ± {row.kid.error * 1e3:.1f}"
    return f"{row.kid.value * 1e3:z.1f}{error}"


def _seam(row: Row, value: float | None) -> str:
    text = _number(".3f", value)
    return f"({text})" if text and row.seam_control else text


COLUMNS: Final = (
    Column(
        "PSNR dB",
        "mean over the pairs of each one's peak signal-to-noise ratio on 8-bit RGB; higher is better",
        lambda row: _number(".2f", row.psnr),
    ),
    Column(
        "SSIM",
        "mean structural similarity: Gaussian window 11, sigma 1.5, per channel; 1 is equal",
        lambda row: _number(".4f", row.ssim),
    ),
    Column(
        "colour",
        "mean CIE76 difference in CIELAB units (D65): 0 is equal, about 2.3 is just noticeable",
        lambda row: _number(".2f", row.colour_difference),
    ),
    Column(
        "KID x1000",
        "kernel distance of the outputs from the DSLR's pictures ± its jackknife standard error, 0 is none: squared "
        "MMD, unbiased, cubic kernel, on EfficientNet-Lite0's pooled features, so not comparable with Inception's",
        _kid,
    ),
    Column(
        "ms / megapixel",
        "median time on this machine's CPU for noise of 1024x1024, or of the one size that a network takes",
        lambda row: _number(".0f", row.ms_per_megapixel),
    ),
    Column(
        "parameters",
        "elements of the float constants in the ONNX file that have a dimension",
        lambda row: _number(",", row.parameters),
    ),
    Column(
        "seams",
        "mean over the whole photos of the change's gradient across tile borders over that beside them: at 1 nothing "
        "shows; in brackets, as a control, where tile borders would be in pictures that have none",
        lambda row: _seam(row, row.seam_mean),
    ),
    Column(
        "worst seams",
        "the same, of the photo where it is largest",
        lambda row: _seam(row, row.seam_worst),
    ),
    Column(
        "photo PSNR dB",
        "mean over the whole photos of the PSNR to their targets",
        lambda row: _number(".2f", row.photo_psnr),
    ),
)


def filled(report: Report) -> list[Column]:
    """Return the columns in which something was measured."""
    return [column for column in COLUMNS if any(column.cell(row) for row in report.rows)]


def facts(report: Report) -> str:
    """Say in a line what a report was measured on."""
    parts = [_count(report.pair_names, "pair"), _count(report.photo_names, "whole photo")]
    machine = report.machine
    where = f"{machine.processor}, {_count(range(machine.threads), 'thread')}, ONNX Runtime {machine.onnxruntime}"
    return f"{', '.join(part for part in parts if part)}; {where}; {machine.date}"


def _count(things: Sequence[object], word: str) -> str:
    return f"{len(things)} {word}{'s' if len(things) > 1 else ''}" if things else ""


def markdown(report: Report) -> str:
    """Lay a report out as a Markdown table."""
    columns = filled(report)
    lines = [
        "| " + " | ".join(["network", *(column.title for column in columns)]) + " |",
        "| " + " | ".join(["---", *("---:" for _ in columns)]) + " |",
    ]
    for row in report.rows:
        name = row.name.replace("|", "\\|")
        lines.append("| " + " | ".join([name, *(column.cell(row) for column in columns)]) + " |")
    return "\n".join(lines)


def to_json(report: Report) -> str:
    """Write a report as JSON, each single score with it; the PSNR of equal pictures, infinity, as the string "inf"."""
    means = ("psnr", "ssim", "colour_difference", "seam_mean", "seam_worst", "photo_psnr")
    whole = {
        **asdict(report),
        "columns": {column.title: column.meaning for column in COLUMNS},
        "rows": [{**asdict(row), **{name: getattr(row, name) for name in means}} for row in report.rows],
    }
    return json.dumps(_finite(whole), indent=1, allow_nan=False, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


_STYLE: Final = """
:root { color-scheme: light dark; --line: light-dark(#d5d5d5, #444); --soft: light-dark(#5a5a5a, #a8a8a8); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child { text-align: left; }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; white-space: normal; }
tbody th { font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; }
dt { font-weight: 600; }
dd { margin: 0; color: var(--soft); }
p { color: var(--soft); }
"""


def html(report: Report) -> str:
    """Write a report as one static page."""
    columns = filled(report)
    heads = "".join(f'<th scope="col">{escape(title)}</th>' for title in ["network", *(c.title for c in columns)])
    rows = "\n".join(
        f'<tr><th scope="row">{escape(row.name)}</th>'
        + "".join(f"<td>{escape(column.cell(row))}</td>" for column in columns)
        + "</tr>"
        for row in report.rows
    )
    meanings = "\n".join(f"<dt>{escape(column.title)}</dt><dd>{escape(column.meaning)}</dd>" for column in columns)
    machine = report.machine
    where = {
        "processor": f"{machine.processor}, {_count(range(machine.threads), 'thread')}",
        "ONNX Runtime": machine.onnxruntime,
        "date": machine.date,
        "pairs": _names(report.pair_names),
        "whole photos": _names(report.photo_names),
    }
    measured = "\n".join(f"<dt>{escape(what)}</dt><dd>{escape(value)}</dd>" for what, value in where.items() if value)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>pix2dslr: networks side by side</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Networks side by side</h1>
<p>All from one run. <code>input</code> is the phone's pictures as they are.</p>
<div class="wide">
<table>
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
<h2>What the columns say</h2>
<dl>
{meanings}
</dl>
<h2>What it was measured on</h2>
<dl>
{measured}
</dl>
</body>
</html>
"""


def _names(names: Sequence[str]) -> str:
    return f"{len(names)}: {', '.join(names)}" if names else ""
