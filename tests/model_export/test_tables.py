import json
import re
from html.parser import HTMLParser

import pytest

from model_export.evaluate import Machine, PairScore, PhotoScore, Report, Row
from model_export.kid import Distance
from model_export.tables import COLUMNS, facts, html, markdown, to_json

INF = float("inf")
HEADINGS = (
    "| network | PSNR dB | SSIM | colour | KID x1000 | ms / megapixel | parameters | seams | worst seams "
    "| photo PSNR dB |"
)


@pytest.fixture
def report() -> Report:
    return Report(
        rows=(
            Row(
                "input",
                (PairScore("1", 17.0, 0.7, 15.0), PairScore("2", 17.168, 0.70912, 15.5)),
                (PhotoScore("a", None, 20.0), PhotoScore("b", None, 21.0)),
                Distance(0.0398, 0.0059),
            ),
            Row(
                "iphone",
                (PairScore("1", 22.0, 0.8, 9.0), PairScore("2", 22.252, 0.8, 9.1)),
                (PhotoScore("a", 0.991, 24.0), PhotoScore("b", 1.02, 25.0)),
                Distance(-0.00004, None),
                1234.5,
                3475436,
            ),
            Row("<b>whole|&", (), (PhotoScore("a", 1.0, None), PhotoScore("b", None, None)), None, 5.4, 0, True),
        ),
        pair_names=("1", "2"),
        photo_names=("a", "b"),
        machine=Machine("Some <CPU> & Co", 2, "1.2.3", "2026-01-02"),
    )


def test_markdown(report: Report) -> None:
    assert markdown(report).splitlines() == [
        HEADINGS,
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| input | 17.08 | 0.7046 | 15.25 | 39.8 ± 5.9 |  |  |  |  | 20.50 |",
        "| iphone | 22.13 | 0.8000 | 9.05 | 0.0 | 1234 | 3,475,436 | 1.006 | 1.020 | 24.50 |",
        r"| <b>whole\|& |  |  |  |  | 5 | 0 | (1.000) | (1.000) |  |",
    ]


def test_columns_of_what_was_not_measured_are_left_out(report: Report) -> None:
    bare = Report((Row("input", (PairScore("1", INF, 1.0, 0.0),)),), ("1",), (), report.machine)
    assert markdown(bare).splitlines() == [
        "| network | PSNR dB | SSIM | colour |",
        "| --- | ---: | ---: | ---: |",
        "| input | inf | 1.0000 | 0.00 |",
    ]
    assert "worst seams" not in html(bare)


def test_facts(report: Report) -> None:
    assert facts(report) == "2 pairs, 2 whole photos; Some <CPU> & Co, 2 threads, ONNX Runtime 1.2.3; 2026-01-02"
    alone = Report(report.rows, (), ("a",), Machine("CPU", 1, "1.2.3", "2026-01-02"))
    assert facts(alone) == "1 whole photo; CPU, 1 thread, ONNX Runtime 1.2.3; 2026-01-02"


def test_json_holds_every_single_score(report: Report) -> None:
    found = json.loads(to_json(report), parse_constant=pytest.fail)  # Infinity and NaN are no JSON
    one = found["rows"][1]
    assert one["psnr"] == pytest.approx(22.126)
    assert one["pairs"][1] == {"name": "2", "psnr": 22.252, "ssim": 0.8, "colour_difference": 9.1}
    assert one["photos"][0] == {"name": "a", "seam_index": 0.991, "psnr": 24.0}
    assert one["kid"] == {"value": -0.00004, "error": None}
    assert (one["ms_per_megapixel"], one["parameters"], one["seam_control"]) == (1234.5, 3475436, False)
    assert (one["seam_mean"], one["seam_worst"], one["photo_psnr"]) == (pytest.approx(1.0055), 1.02, 24.5)
    assert found["rows"][2]["psnr"] is None
    assert found["machine"] == {
        "processor": "Some <CPU> & Co",
        "threads": 2,
        "onnxruntime": "1.2.3",
        "date": "2026-01-02",
    }
    assert found["pair_names"] == ["1", "2"]
    assert list(found["columns"]) == [column.title for column in COLUMNS]
    equal = Report((Row("input", (PairScore("1", INF, 1.0, 0.0),)),), ("1",), (), report.machine)
    assert json.loads(to_json(equal), parse_constant=pytest.fail)["rows"][0]["pairs"][0]["psnr"] == "inf"


class Page(HTMLParser):
    """Reads a page: the table's cells, the text, and what it would fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.table: list[list[str]] = []
        self.text = ""
        self.open: list[str] = []
        self.reaches: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.reaches += [name for name, _ in attributes if name in ("src", "href") or name.startswith("on")]
        self.reaches += [tag] if tag in ("script", "link", "img", "iframe") else []
        if tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.table.append([])
        if tag in ("th", "td"):
            self.table[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in ("th", "td"):
            self.table[-1][-1] += data


def test_the_page_is_whole_escaped_and_needs_nothing_else(report: Report) -> None:
    written = html(report)
    page = Page(written)
    assert not page.open
    assert not page.reaches
    assert "url(" not in written
    assert "@import" not in written
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in markdown(report).splitlines()]
    rows[-1][0] = rows[-1][0].replace("\\|", "|")
    assert page.table == [rows[0], *rows[2:]]
    assert all(column.meaning in page.text for column in COLUMNS)
    for fact in ("Some <CPU> & Co, 2 threads", "1.2.3", "2026-01-02", "2: 1, 2", "2: a, b"):
        assert fact in page.text
