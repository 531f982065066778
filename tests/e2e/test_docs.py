"""README and docs: every command is run, or says why not; tables and links are true."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from typer.main import get_command

import model_export.cli
import service.cli
from service.problems import all_problems
from service.settings import SHIPPED_MODELS, Settings
from tests.e2e.conftest import Server

PROJECT: Final = Path(__file__).parents[2]
PAGES: Final = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md")), PROJECT / "examples" / "README.md"]

NOT_RUN: Final = {
    "README.md": 6,
    "docs/bulk.md": 5,
    "docs/command-line.md": 1,
    "docs/deploying.md": 4,
    "docs/operating.md": 6,
    "docs/performance.md": 4,
    "docs/quick-start.md": 1,
    "docs/scaling.md": 1,
    "docs/training.md": 2,
    "examples/README.md": 1,
}
"""How many blocks of each page are not run. A new one is counted here, so that nobody adds it unseen."""

_BLOCK: Final = re.compile(
    r"(?:^ *<!-- not run: (?P<reason>[^\n]+?) -->\n)?^(?P<indent> *)```sh\n(?P<text>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)
_RUNNABLE: Final = re.compile(
    r"(\.venv/bin/|curl |docker |pip |accelerate |torchrun |tensorboard |python |unzip |pix2dslr)"
)


@dataclass(frozen=True)
class Block:
    """Commands that stand together on a page, and why they are not run, where they are not."""

    page: str
    commands: tuple[str, ...]
    reason: str | None


def name_of(page: Path) -> str:
    return page.relative_to(PROJECT).as_posix()


def blocks() -> Iterator[Block]:
    for page in PAGES:
        for found in _BLOCK.finditer(page.read_text()):
            text = found["text"].replace("\\\n", "")
            commands = tuple(line.strip() for line in text.splitlines() if line.strip())
            yield Block(name_of(page), commands, found["reason"])


BLOCKS: Final = list(blocks())
RUN: Final = [block for block in BLOCKS if block.reason is None]


@pytest.fixture
def checkout(tmp_path: Path, photo: npt.NDArray[np.uint8]) -> Path:
    """A folder with what the pages speak of: .venv, examples, photos; a fresh one for each block."""
    folder = tmp_path
    (folder / ".venv").symlink_to(sys.prefix)
    for name in ("examples", "service"):
        (folder / name).symlink_to(PROJECT / name)
    (folder / "photos").mkdir()
    dull = (photo * 0.7).astype(np.uint8)
    for name, pixels in (
        ("photo.jpg", dull),
        ("phone.jpg", dull),
        ("dslr.jpg", photo),
        ("photos/a.jpg", dull),
        ("photos/b.jpg", dull[::-1]),
    ):
        assert cv2.imwrite(str(folder / name), pixels[:, :, ::-1])
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        for path in (folder / "photos").iterdir():
            archive.write(path, path.relative_to(folder))
    # an answer that is an error is one for the shell, too
    (folder / ".curlrc").write_text("fail\nsilent\nshow-error\nmax-time = 100\n")
    return folder


@pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("bash")), reason="the pages' commands need curl and bash"
)
@pytest.mark.parametrize("block", RUN, ids=[f"{block.page}-{i}" for i, block in enumerate(RUN)])
def test_commands(block: Block, checkout: Path, server: Server) -> None:
    address = server.url.removeprefix("http://")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIX2DSLR_")}
    environment |= {"CURL_HOME": str(checkout), "PYTHONPATH": str(PROJECT), "no_proxy": "*"}
    for written in block.commands:
        command = written.replace("localhost:8000", address)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{written}\n{done.stdout}{done.stderr}"
        for promised in re.findall(r"# prints (\S+)$", written):
            assert promised in done.stdout, written
        for made in re.findall(r"(?:-o|--out|-D)[ =]([\w./-]+)", written):
            path = checkout / made
            assert path.exists(), written
            assert any(path.iterdir()) if path.is_dir() else path.stat().st_size > 0, written


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in page.read_text()], ids=name_of)
def test_python(page: Path, checkout: Path, server: Server) -> None:
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "examples" / "client"), "PYTHONWARNINGS": "error"}
    for code in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        before = set(checkout.iterdir())
        here = code.replace("http://localhost:8000", server.url)
        subprocess.run([sys.executable, "-c", here], cwd=checkout, env=environment, timeout=120, check=True)
        (made,) = set(checkout.iterdir()) - before
        assert made.stat().st_size > 0


def test_what_is_not_run_is_counted() -> None:
    marked = [block.page for block in BLOCKS if block.reason is not None]
    counted = {name_of(page): marked.count(name_of(page)) for page in PAGES}
    assert {name: count for name, count in counted.items() if count} == NOT_RUN
    assert len(RUN) >= 10


def test_no_mark_stands_where_it_marks_nothing() -> None:
    for page in PAGES:
        marks = page.read_text().count("<!-- not run:")
        assert marks == sum(block.page == name_of(page) and block.reason is not None for block in BLOCKS), page.name


def test_commands_stand_in_blocks() -> None:
    """And not within a sentence, where nothing runs them; but for naming a program, its commands, or its help."""
    for page in PAGES:
        prose = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for span in re.findall(r"`([^`\n]+)`", prose):
            if _RUNNABLE.match(span) and " " in span:
                names = span.endswith("--help") or re.fullmatch(r"pix2dslr(-export)? [a-z]+", span)
                assert names, f"{page.name}: {span}"


def test_what_make_is_asked_for_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    asked = {name for page in PAGES for name in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE)}
    assert asked
    assert asked <= targets


def test_options_of_what_is_not_run_exist() -> None:
    # of typer's own click, which is no public type
    programs: dict[str, Any] = {
        "pix2dslr": get_command(service.cli.app),
        "pix2dslr-export": get_command(model_export.cli.app),
    }
    seen = 0
    for words in (shlex.split(each, comments=True) for block in BLOCKS if block.reason for each in block.commands):
        program = programs.get(Path(words[0]).name)
        if program is None:
            continue
        known = {option for parameter in program.commands[words[1]].params for option in parameter.opts}
        asked = {word for word in words[2:] if word.startswith("--")}
        assert asked <= known, shlex.join(words)
        seen += len(asked)
    assert seen > 5


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link, place in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)]+))?\)", page.read_text()):
        target = (page.parent / link) if link else page
        assert target.exists(), link
        if place:
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert place in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, link


def table_under(title: str, page: str) -> list[str]:
    """The rows of the first table under a heading."""
    section = (PROJECT / "docs" / page).read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return lines[2:] if len(lines) > 1 and lines[1].startswith("| ---") else lines


def test_the_table_of_settings() -> None:
    """What the docstring of Settings says of each, and its default."""
    told: dict[str, str] = {}
    lines = (Settings.__doc__ or "").partition("Attributes:\n")[2].splitlines()
    text = re.sub(r"\n {12}", " ", "\n".join(lines))
    for names, meaning in re.findall(r"^ {8}(\w+(?:, \w+)*): (.+)$", text, re.MULTILINE):
        told |= dict.fromkeys(names.split(", "), meaning.rstrip("."))
    expected = []
    for name, field in Settings.model_fields.items():
        default = "the shipped ones" if field.default == SHIPPED_MODELS else f"`{field.default}`"
        default = "" if field.default in (None, ()) else re.sub("True|False", lambda found: found[0].lower(), default)
        expected.append(f"| `PIX2DSLR_{name.upper()}` | {default} | {told[name]} |")
    assert table_under("Settings", "operating.md") == expected, "it should be:\n" + "\n".join(expected)


def test_the_table_of_errors() -> None:
    expected = [f"| {each.status} | `{each.type}` | {each.title} |" for each in all_problems()]
    assert table_under("Errors", "http.md") == expected, "it should be:\n" + "\n".join(expected)
