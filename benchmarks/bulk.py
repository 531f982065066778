"""`python -m benchmarks.bulk`: pictures a second of `pix2dslr bulk` with one actor and with two, in turns, in one run.

An actor runs the generator on one CPU. Two can only be twice as fast where two CPUs are free for them: what reads,
decodes and encodes beside the generator takes some of the second one's time already when there is one actor.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.pictures import jpeg
from service.commands.batch import Options
from service.commands.bulk import set_ray_up
from service.commands.bulk_actor import Work
from service.commands.bulk_ledger import digest_of
from service.commands.bulk_listing import Listing, Row
from service.commands.bulk_places import open_place
from service.commands.common import file_sha256
from service.settings import SHIPPED_MODELS

_MIDDLE: Final = (0.2, 0.8)
"""The part of a run that counts: by then all actors work, and none has run out of work yet."""


def pace(done: Sequence[float]) -> float:
    """Return pictures a second in the middle of a run, from the times at which each was told as done."""
    first, last = (int(share * (len(done) - 1)) for share in _MIDDLE)
    return (last - first) / (done[last] - done[first])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--side", type=int, default=768, help="of each picture, in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    set_ray_up(None)
    from service.commands import bulk_run

    options = Options("iphone")
    sha256 = file_sha256(SHIPPED_MODELS / "iphone.onnx")
    how = digest_of({**asdict(options), "model_sha256": sha256})
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "photos"), Path(folder, "enhanced")
        source.mkdir()
        data = jpeg(given.side, given.side)
        for i in range(given.pictures):
            (source / f"{i:05}.jpg").write_bytes(data)
        work = Work(str(source), str(target), options, {"device": "cpu", "decode_workers": 2}, how, sha256, cpus=1)
        listing = Listing(open_place(work.source), open_place(work.target), None, how, force=True)
        pool = bulk_run.Pool(None, None, 1, 0)
        paces: dict[int, list[float]] = {1: [], 2: []}
        with bulk_run.cluster(pool, verbose=False):
            for _ in range(given.rounds):
                for actors, found in paces.items():
                    done: list[float] = []

                    def each(row: Row, done: list[float] = done) -> None:
                        assert row.outcome == "done", row
                        done.append(time.perf_counter())

                    bulk_run.run(listing, work, pool, actors, each, lambda: False)
                    assert len(done) == given.pictures
                    found.append(pace(done))
                    sys.stderr.write(f"{actors} actors: {found[-1]:.1f} pictures/s\n")
    ratios = np.array(paces[2]) / np.array(paces[1])
    one, two = (float(np.median(paces[actors])) for actors in (1, 2))
    sys.stdout.write(
        f"{given.side}x{given.side} JPEGs, {given.rounds} rounds: one actor {one:.1f} pictures/s, two {two:.1f}"
        f"; two over one in the same round: median {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})\n"
    )


if __name__ == "__main__":
    main()
