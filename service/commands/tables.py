"""What `pix2dslr evaluate` answers: rows, their means, and the forms that they are written in. Pure."""

import base64
import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

import cv2
import jinja2
import numpy as np
import numpy.typing as npt
from rich.table import Table

from service.commands.common import shown
from service.evaluation import Comparison
from service.schemas import Evaluation

Image = npt.NDArray[np.uint8]

_THUMBNAIL: Final = 320
_QUALITY: Final = 80
MEASURES: Final = ("psnr", "ssim", "colour_difference")
_DIGITS: Final = {"psnr": 2, "ssim": 4, "colour_difference": 2}
_HEADINGS: Final = {"psnr": "PSNR dB", "ssim": "SSIM", "colour_difference": "colour"}


@dataclass(frozen=True)
class Row:
    """One picture.

    Attributes:
        name: what it is called.
        scores: what was measured.
        thumbnails: JPEG files of the input, the output and the reference; empty where none were asked for.
    """

    name: str
    scores: Evaluation
    thumbnails: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Failure:
    """One picture that could not be measured, and why."""

    name: str
    problem: str


def row_of(name: str, comparison: Comparison, *, thumbnails: bool) -> Row:
    """Keep of a comparison what a table shows: not the pictures, of which there may be thousands."""
    pictures = (comparison.before, comparison.after, comparison.reference) if thumbnails else ()
    return Row(name, comparison.scores, tuple(_thumbnail(picture) for picture in pictures))


def _thumbnail(picture: Image) -> bytes:
    height, width = picture.shape[:2]
    scale = min(1.0, _THUMBNAIL / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    done, data = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done
    return data.tobytes()


@dataclass(frozen=True)
class Means:
    """Averages over the pictures that have a value.

    A gain in PSNR is missing where a picture equals its reference, a seam index where nothing changed.

    Attributes:
        pictures: how many rows there are.
        input, output, gain: averages by measure, None where no row has a value.
        seam_index: likewise.
    """

    pictures: int
    input: Mapping[str, float | None]
    output: Mapping[str, float | None]
    gain: Mapping[str, float | None]
    seam_index: float | None


def means(rows: Sequence[Row]) -> Means:
    """Average over rows."""

    def of(part: str) -> dict[str, float | None]:
        return {
            measure: _mean([getattr(getattr(row.scores, part), measure) for row in whole[measure]])
            for measure in MEASURES
        }

    # before and after are compared over the same pictures
    whole = {measure: [row for row in rows if getattr(row.scores.gain, measure) is not None] for measure in MEASURES}
    return Means(len(rows), of("input"), of("output"), of("gain"), _mean([row.scores.seam_index for row in rows]))


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present else None


def as_table(rows: Sequence[Row]) -> Table:
    """Lay rows and their means out for a terminal."""
    table = Table("picture", box=None, header_style="bold", pad_edge=False, show_footer=len(rows) > 1)
    average = means(rows)
    table.columns[0].footer = f"mean of {len(rows)}"
    for measure in MEASURES:
        footer = _change(measure, average.input[measure], average.output[measure])
        table.add_column(_HEADINGS[measure], footer, justify="right")
    table.add_column("seams", _number(average.seam_index, 3), justify="right")
    for row in rows:
        before, after = row.scores.input, row.scores.output
        changes = [_change(measure, getattr(before, measure), getattr(after, measure)) for measure in MEASURES]
        table.add_row(shown(row.name), *changes, _number(row.scores.seam_index, 3))
    return table


def _change(measure: str, before: float | None, after: float | None) -> str:
    return f"{_number(before, _DIGITS[measure])} → {_number(after, _DIGITS[measure])}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def as_csv(rows: Sequence[Row]) -> str:
    """Write a line a row, full precision, empty where there is no value (RFC 4180)."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    parts = [(part, measure) for part in ("input", "output", "gain") for measure in MEASURES]
    header = [f"{part}_{measure}" for part, measure in parts]
    writer.writerow(["picture", "camera", "device", "width", "height", "tiles", *header, "seam_index"])
    for row in rows:
        scores = row.scores
        values = [getattr(getattr(scores, part), measure) for part, measure in parts]
        facts = [scores.camera, scores.device, scores.width, scores.height, scores.tiles]
        writer.writerow([row.name, *facts, *values, scores.seam_index])
    return text.getvalue()


def as_json(rows: Sequence[Row], failures: Sequence[Failure]) -> str:
    """Write everything; each picture as POST /evaluate answers it."""
    pictures = [{"picture": row.name, **row.scores.model_dump(mode="json")} for row in rows]
    answer = {"pictures": pictures, "mean": asdict(means(rows)), "failed": [asdict(failure) for failure in failures]}
    return json.dumps(answer, indent=2, allow_nan=False) + "\n"


def as_html(rows: Sequence[Row], failures: Sequence[Failure], facts: Mapping[str, str]) -> str:
    """Write one static page with its thumbnails inside: no script, and nothing from another host.

    Args:
        rows: with thumbnails.
        failures: what could not be measured.
        facts: what was done, by name, for the head of the page.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("evaluation.html").render(
        rows=[(row, [base64.b64encode(thumbnail).decode() for thumbnail in row.thumbnails]) for row in rows],
        mean=means(rows),
        failures=failures,
        facts=facts,
        measures=[(measure, _HEADINGS[measure], measure == "colour_difference") for measure in MEASURES],
        number=lambda value, measure: _number(value, _DIGITS.get(measure, 3)),
    )
