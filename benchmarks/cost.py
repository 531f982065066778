"""What a picture costs, and from it what a load needs. Pure arithmetic; `benchmarks.scaling` measures the figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.tiling import plan

UTILIZATION: Final = 0.7
"""What is planned for: up to there the queue stays short, see the simulated table; the rest is for peaks."""


@dataclass(frozen=True)
class Cost:
    """Seconds of one core.

    Attributes:
        tile_s: inference of a tile while all cores work.
        megapixel_s: what a megapixel adds: decoding, cutting, blending, encoding, bytes moved.
        request_s: what a request adds: HTTP, forms, threads.
        bytes_in, bytes_out: of a megapixel, as JPEG.
    """

    tile_s: float
    megapixel_s: float
    request_s: float
    bytes_in: float
    bytes_out: float

    def core_s(self, height: int, width: int) -> float:
        """Seconds of a core that a picture takes, inference on the CPU."""
        return plan(height, width, 32).tiles * self.tile_s + self.around_s(height, width)

    def around_s(self, height: int, width: int) -> float:
        """The same without inference: what is left to cores where a GPU runs the tiles."""
        return height * width / 1e6 * self.megapixel_s + self.request_s


@dataclass(frozen=True)
class Workload:
    """Pictures of one size that come at a rate.

    Attributes:
        name: what it is called.
        height, width: pixels of each.
        rate: pictures a second, the mean over the hours that count.
    """

    name: str
    height: int
    width: int
    rate: float


@dataclass(frozen=True)
class Needs:
    """What a workload needs.

    Attributes:
        tiles_s: tiles a second.
        inference_cores, other_cores: busy cores for inference and for all else.
        cores: so many that the busy ones are `UTILIZATION` of them.
        gbit_s: bits a second in and out together, 1e9.
    """

    tiles_s: float
    inference_cores: float
    other_cores: float
    cores: int
    gbit_s: float


def needs(workload: Workload, cost: Cost) -> Needs:
    """Compute what a workload needs on CPUs."""
    tiles_s = workload.rate * plan(workload.height, workload.width, 32).tiles
    inference = tiles_s * cost.tile_s
    other = workload.rate * cost.around_s(workload.height, workload.width)
    megapixels_s = workload.rate * workload.height * workload.width / 1e6
    bits = megapixels_s * (cost.bytes_in + cost.bytes_out) * 8
    return Needs(tiles_s, inference, other, math.ceil((inference + other) / UTILIZATION), bits / 1e9)


def table(workloads: Sequence[Workload], cost: Cost) -> str:
    """Return a Markdown table of what workloads need."""
    lines = [
        f"| load | pictures/s | tiles/s | cores for inference | for the rest | needed at {UTILIZATION:.0%} | Gbit/s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for workload in workloads:
        its = needs(workload, cost)
        lines.append(
            f"| {workload.name} | {workload.rate:,.4g} | {its.tiles_s:,.0f} | {its.inference_cores:,.1f} "
            f"| {its.other_cores:,.2g} | {its.cores:,} | {its.gbit_s:.2g} |"
        )
    return "\n".join(lines)
