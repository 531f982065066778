"""`python -m tests.corpus FOLDER...`: sends every file of the folders to a service and compares each answer.

Pillow with ImageCms, libvips, and exiftool where it is installed, say what each answer has to look like: size, colours,
alpha, depth, metadata. Refusals have to be documented problems. Prints a table and writes a CSV, from which a run that
was stopped goes on; exits with 1 where something is wrong.
"""

import argparse
import csv
import hashlib
import random
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Final

import httpx

from benchmarks.server import running_server
from service.codec import FORMATS
from tests.corpus.children import Child, has_exiftool
from tests.corpus.trying import CLASSES, Row, Trial
from tests.hostile import good
from tests.onnx_files import write_generator

_COLUMNS: Final = tuple(each.name for each in fields(Row))
_CHECK_EVERY: Final = 100
"""Files between two checks of the service's health."""
_READ_S: Final = 60.0
_SHOWN: Final = 15

Job = tuple[Path, bool]
"""A file, and whether it was sent before."""


def found_in(folders: Iterable[Path]) -> list[Path]:
    """All files of folders and of those below, in a fixed order; hidden ones are passed over."""
    return sorted(
        file
        for folder in folders
        for file in (folder.rglob("*") if folder.is_dir() else [folder])
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def order_of(files: Sequence[Path], seed: int, again_every: int) -> list[Job]:
    """Put files in a random order, with some of them once more at a later place."""
    chance = random.Random(seed)
    order: list[tuple[float, Path, bool]] = []
    for number, file in enumerate(chance.sample(files, len(files))):
        place = chance.random()
        order.append((place, file, False))
        if again_every and number % again_every == 0:
            order.append((place + (1 - place) * chance.random(), file, True))
    return [(file, again) for _, file, again in sorted(order)]


class Health:
    """Whether the service is ready and still answers known good files as it did at first."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        made = {format_: good.heic() if format_ == "heic" else getattr(good, format_)() for format_ in
                ("jpeg", "png", "webp", "bmp", "avif", "heic")}  # fmt: skip
        made["tiff"] = good.saved(good.pixels(), "TIFF", compression="tiff_lzw")
        self._files = {format_: data for format_, data in made.items() if data}
        self._first: dict[str, bytes] = {}

    def faults(self) -> list[str]:
        """Say what is wrong with it now."""
        try:
            ready = self._client.get("/readyz")
            wrong = [] if ready.status_code == 200 else [f"/readyz answers {ready.status_code}: {ready.text[:200]}"]
            for format_, data in self._files.items():
                answer = self._client.post("/enhance", files={"image": data}, data={"strength": "0", "format": "png"})
                if answer.status_code != 200:
                    wrong.append(f"a good {format_} is answered with {answer.status_code}: {answer.text[:300]}")
                elif self._first.setdefault(format_, answer.content) != answer.content:
                    wrong.append(f"a good {format_} is answered differently")
        except httpx.HTTPError as error:
            return [f"the service can't be reached: {type(error).__name__}: {error}"]
        return wrong


class Ledger:
    """The CSV: rows of earlier runs, and this run's."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.rows: dict[str, Mapping[str, str]] = {}
        if file.exists():
            with file.open(newline="") as lines:
                self.rows = {row["path"]: row for row in csv.DictReader(lines) if row.get("largest")}
        self._write(self.rows.values(), "w")

    def _write(self, rows: Iterable[Mapping[str, str]], mode: str) -> None:
        with self._file.open(mode, newline="") as lines:
            writer = csv.DictWriter(lines, _COLUMNS)
            if mode == "w":
                writer.writeheader()
            writer.writerows(rows)

    def holds(self, path: Path) -> bool:
        """Whether a file is in it with the same bytes."""
        row = self.rows.get(str(path))
        return row is not None and row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()

    def add(self, row: Mapping[str, str]) -> None:
        """Add a file's row, or put it in the place of the one there was."""
        known = row["path"] in self.rows
        self.rows[row["path"]] = row
        self._write(self.rows.values() if known else [row], "w" if known else "a")


def table(rows: Iterable[Mapping[str, str]]) -> str:
    """How many files of each format belong to each class."""
    counted: dict[str, Counter[str]] = {}
    for row in rows:
        counted.setdefault(row["format"], Counter()).update([row["outcome"], "files"])
    columns = (*CLASSES, "files")
    lines = [f"{'format':8}" + "".join(f"{name:>{len(name) + 3}}" for name in columns)]
    for format_, counts in (*sorted(counted.items()), ("all", sum(counted.values(), Counter()))):
        lines.append(f"{format_:8}" + "".join(f"{counts[name]:>{len(name) + 3}}" for name in columns))
    return "\n".join(lines)


def listed(rows: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """What went wrong, and what was refused though a decoder reads it, by kind with some of the files."""
    kinds: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        if row["wrong"] == "True" or row["outcome"] == "refused-though-readable":
            name = f"{row['outcome']} {row['format']} {row['kinds'] or row['problem']}"
            kinds.setdefault(("WRONG " if row["wrong"] == "True" else "") + name, []).append(row)
    for kind, found in sorted(kinds.items()):
        yield f"\n{kind}: {len(found)}"
        yield from (f"  {row['path']}: {row['detail'][:300]}" for row in found[:_SHOWN])
        if len(found) > _SHOWN:
            yield f"  and {len(found) - _SHOWN} more"


def run(jobs: Sequence[Job], ledger: Ledger, url: str, options: argparse.Namespace) -> list[str]:
    """Send files, several at the same time; return what is wrong with the service itself."""
    local, answers = threading.local(), dict[tuple[str, str], str]()
    children: list[Child] = []

    def trial() -> Trial:
        if not hasattr(local, "trial"):
            child = Child(_READ_S)
            children.append(child)
            local.trial = Trial(client(), child, options.format or ["png"], options.strength, answers)
        made: Trial = local.trial
        return made

    def client() -> httpx.Client:
        return httpx.Client(base_url=url, timeout=options.seconds, trust_env=False)

    def one(job: Job) -> tuple[Path, Row | str]:
        path, again = job
        return path, trial().repeat(path) if again else trial().run(path)

    health, wrong = Health(client()), list[str]()
    wrong += health.faults()
    pool = ThreadPoolExecutor(options.at_once)
    try:
        for start in range(0, len(jobs), _CHECK_EVERY):
            for sent in as_completed(pool.submit(one, job) for job in jobs[start : start + _CHECK_EVERY]):
                _note(ledger, *sent.result())
            count = min(start + _CHECK_EVERY, len(jobs))
            found = [f"after {count} requests: {fault}" for fault in health.faults()]
            print(f"{count} of {len(jobs)}", *found, sep="\n", file=sys.stderr, flush=True)
            wrong += found
    finally:
        pool.shutdown(cancel_futures=True)
        for child in children:
            child.close()
    return wrong


def _note(ledger: Ledger, path: Path, said: Row | str) -> None:
    if isinstance(said, Row):
        ledger.add(said.cells())
    elif said and str(path) in ledger.rows:
        row = {**ledger.rows[str(path)], "outcome": "different", "wrong": "True", "kinds": "repeated", "detail": said}
        ledger.add(row)


@contextmanager
def service(url: str | None) -> Iterator[str]:
    """The service that is named, or one of this code with a generator that changes nothing."""
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory() as folder:
        write_generator(Path(folder) / "iphone.onnx")
        with running_server({"MODELS": folder, "BATCH_SIZES": "[1,2]"}) as server:
            yield server.url


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command's options."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description=(__doc__ or "").partition("\n")[2])
    add = parser.add_argument
    add("folders", nargs="+", type=Path, metavar="FOLDER", help="with files of any kind, or a file")
    add("--url", help="of a running service; without it one is started, on a generator that changes nothing")
    add("--csv", type=Path, default=Path("corpus.csv"), help="one row a file; files in it are not sent again")
    add("--seed", type=int, help="of the order; drawn and printed where it is absent")
    add("--again-every", type=int, default=10, metavar="N", help="send every Nth file twice; 0 sends none (10)")
    add("--format", action="append", choices=FORMATS, help="ask for it besides the file's own (png)")
    add("--strength", type=float, default=0.0, help="other than 0, pixels are not compared (0)")
    add("--at-once", type=int, default=2, metavar="N", help="files under way at the same time (2)")
    add("--seconds", type=float, default=60.0, help="that an answer may take (60)")
    add("--most", type=int, metavar="N", help="make N requests of the order and no more")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = parsed(arguments)
    seed = random.randrange(2**32) if options.seed is None else options.seed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    ledger = Ledger(options.csv)
    jobs = [job for job in order_of(found_in(options.folders), seed, options.again_every) if not ledger.holds(job[0])]
    jobs = jobs[: options.most]
    print(f"seed {seed}: {len(jobs)} requests to make, {len(ledger.rows)} files are in {options.csv}", file=sys.stderr)
    if not has_exiftool():
        print("exiftool is not installed: metadata is not compared", file=sys.stderr)
    with service(options.url) as url:
        wrong = run(jobs, ledger, url, options)
    rows = list(ledger.rows.values())
    print(*listed(rows), "", table(rows), "", *(wrong or ["the service stayed healthy"]), sep="\n")
    return 1 if wrong or any(row["wrong"] == "True" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
