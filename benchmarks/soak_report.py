"""What the clients and the watcher saw -> verdicts, a table, JSON and a plot."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from benchmarks.soak_clients import Answer, Seen

WARM_UP: Final = 0.25
"""The part of a phase before memory and goodput are looked at: caches and arenas fill, the queue too."""

Samples = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Phase:
    """A part of the run.

    Attributes:
        name: such as `300 %`.
        begin, end: seconds since the epoch, without the draining after it.
        seen: by its clients.
        load: the part of capacity that is asked for, 0 where clients wait for their answers.
    """

    name: str
    begin: float
    end: float
    seen: Seen
    load: float = 0.0

    @property
    def warm(self) -> float:
        """When its warm-up is over."""
        return self.begin + WARM_UP * (self.end - self.begin)

    def goodput(self) -> tuple[float, float]:
        """Pictures and tiles a second, answered right, after the warm-up."""
        return self.seen.good(self.warm, self.end)

    def within(self, samples: Samples, *, warm: bool = True) -> Samples:
        """The samples of its time."""
        begin = self.warm if warm else self.begin
        return [each for each in samples if begin <= each["at"] < self.end and "lost" not in each]


@dataclass(frozen=True)
class Verdict:
    """One thing that is wanted.

    Attributes:
        what, value, reach: in words.
        reached: whether it is, None where nothing is wanted of it.
    """

    what: str
    value: str
    reach: str = ""
    reached: bool | None = None


def slope(at: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Least-squares slope a minute, and its standard error.

    Samples that follow each other are no independent ones: for the error they are averaged over a 20th of the time.
    """
    if len(at) < 20:
        return float("nan"), float("nan")
    each = np.array([(part_at.mean(), part.mean()) for part_at, part in zip(
        np.array_split(at, 20), np.array_split(values, 20), strict=True)])  # fmt: skip
    (per_second, _), spread = np.polyfit(each[:, 0] - at[0], each[:, 1], 1, cov=True)
    return float(per_second * 60), float(np.sqrt(spread[0, 0]) * 60)


def resident(samples: Samples) -> npt.NDArray[np.float64]:
    """MB of the server's processes together: proportional where it is told, so that shared pages count once."""
    return np.array([
        each["pss"] + each["workers_pss"] if each["pss"] == each["pss"] else each["rss"] + each["workers_rss"]
        for each in samples
    ])  # fmt: skip


def verdicts(phases: Sequence[Phase], samples: Samples, log: Sequence[str]) -> list[Verdict]:
    """Judge a run."""
    answers = [answer for phase in phases for answer in phase.seen.answers]
    count = _count(answers)
    found = [
        Verdict("requests answered", str(len(answers))),
        Verdict("wrong pictures", str(count.get("wrong", 0)), "0", not count.get("wrong")),
        Verdict("unexplained errors", str(count.get("unexplained", 0)), "0", not count.get("unexplained")),
    ]
    errors = [line for line in log if " ERROR " in line or line.startswith("Traceback")]
    found.append(Verdict("errors in the server's log", str(len(errors)), "0", not errors))
    busy = [line for line in log if "the event loop was busy" in line]
    found.append(Verdict("steps of the event loop above 20 ms", str(len(busy)), "0", not busy))
    peak = [phase.goodput() for phase in phases if not phase.load]
    best = np.mean(peak, axis=0) if peak else np.array([np.nan, np.nan])
    found.append(Verdict("capacity, before and after", " and ".join(
        f"{tiles:.0f} tiles/s ({pictures:.1f} pictures/s)" for pictures, tiles in peak)))  # fmt: skip
    for phase in phases:
        if not phase.load:
            continue
        pictures, tiles = phase.goodput()
        if phase.load > 1:
            found.append(Verdict(f"{phase.name}: goodput, of capacity",
                f"{tiles / best[1]:.2f} in tiles, {pictures / best[0]:.2f} in pictures", "≥ 0.9 in tiles",
                bool(tiles >= 0.9 * best[1])))  # fmt: skip
        mine = phase.within(samples)
        per_minute, error = slope(np.array([each["at"] for each in mine]), resident(mine))
        # of less than a minute there is no slope
        flat = None if np.isnan(per_minute) or mine[-1]["at"] - mine[0]["at"] < 60 else bool(per_minute < 1)
        found.append(Verdict(f"{phase.name}: memory's slope", f"{per_minute:+.2f} ± {error:.2f} MB/min",
                             "< 1 MB/min", flat))  # fmt: skip
        drawn = phase.seen.dropped
        found.append(Verdict(f"{phase.name}: not sent in time by the generator", f"{drawn} of {phase.seen.sent}",
                             "≤ 1 %", drawn <= 0.01 * phase.seen.sent))  # fmt: skip
        took = [answer.took for answer in phase.seen.answers if answer.what == "ok"]
        if took:
            middle, most = np.percentile(took, [50, 99])
            found.append(Verdict(f"{phase.name}: seconds of an answer", f"{middle:.2f} half, {most:.2f} 99 %"))
        ends = ", ".join(f"{n} {what}" for what, n in sorted(_count(phase.seen.answers).items(), key=lambda e: -e[1]))
        found.append(Verdict(f"{phase.name}: ends", ends))
    probes = [probe for each in samples for probe in each.get("probes", [])]
    seconds = np.array([took for took, _ in probes])
    slow = int((seconds > 0.1).sum())
    most, nearly = seconds.max() * 1e3, np.percentile(seconds, 99) * 1e3
    told = f"{most:.0f} ms at most, {nearly:.0f} ms 99 %, {slow} of {len(probes)} above 100"
    found.append(Verdict("readiness", told, "≤ 100 ms", bool(most <= 100)))
    unready = sum(status != 200 for _, status in probes)
    found.append(Verdict("probes that said not ready", str(unready), "0", not unready))
    late = max(each.get("late", 0.0) for each in samples)
    found.append(Verdict("the watcher itself woke up late by", f"{late * 1e3:.0f} ms at most"))
    whole = [each for each in samples if "lost" not in each]
    cpu = {name: whole[-1][name] - whole[0][name] for name in ("cpu", "generator_cpu", "own_cpu")}
    share = (cpu["generator_cpu"] + cpu["own_cpu"]) / sum(cpu.values())
    found.append(Verdict("generator's and watcher's share of the CPU used", f"{share:.1%}"))
    for name in ("descriptors", "threads"):
        values = [each[name] for each in whole]
        found.append(Verdict(name, f"{values[0]} at first, {max(values)} at most, {values[-1]} at last"))
    total = resident(whole)
    found.append(Verdict("memory", f"{total[0]:.0f} MB at first, {total.max():.0f} at most, {total[-1]:.0f} at last"))
    return found


def _count(answers: Sequence[Answer]) -> dict[str, int]:
    return {what: sum(answer.what == what for answer in answers) for what in {answer.what for answer in answers}}


def table(found: Sequence[Verdict]) -> str:
    """Lay the verdicts out in Markdown."""
    lines = ["| what | | reach |", "| --- | --- | --- |"]
    for each in found:
        missed = " **missed**" if each.reached is False else ""
        lines.append(f"| {each.what} | {each.value} | {each.reach}{missed} |")
    return "\n".join(lines)


def write_json(found: Sequence[Verdict], phases: Sequence[Phase], samples: Samples, path: Path) -> None:
    """Write the verdicts, the phases with each of their answers, and the samples."""
    told = [{"name": p.name, "begin": p.begin, "end": p.end, "load": p.load, "sent": p.seen.sent,
             "dropped": p.seen.dropped, "tries": p.seen.tries, "counts": p.seen.counts(),
             "answers": [list(asdict(a).values()) for a in p.seen.answers]} for p in phases]  # fmt: skip
    path.write_text(json.dumps({"verdicts": [asdict(v) for v in found], "phases": told, "samples": samples}))


def plot(phases: Sequence[Phase], samples: Samples, path: Path) -> None:
    """Draw memory, queue, latency and rejections over the minutes of all phases."""
    samples = [each for each in samples if "lost" not in each]
    start = samples[0]["at"]
    minutes = np.array([(each["at"] - start) / 60 for each in samples])
    figure = Figure(figsize=(11, 12), layout="constrained")
    memory, queue, latency, ends = figure.subplots(4, 1, sharex=True)
    memory.plot(minutes, resident(samples), label="all its processes")
    if any(each["workers"] for each in samples):
        memory.plot(minutes, [each["rss"] for each in samples], label="main process (RSS)")
        memory.plot(minutes, [each["workers_rss"] for each in samples], label="workers (RSS)")
    memory.set(ylabel="MB", title="Memory", ylim=(0, None))
    queue.plot(minutes, [each.get("queue_tiles", 0) for each in samples], label="tiles waiting")
    other = queue.twinx()
    other.plot(minutes, [each.get("requests_in_flight", 0) for each in samples], "C1", label="requests in flight")
    other.plot(minutes, [each["descriptors"] for each in samples], "C2", label="descriptors")
    other.set(ylabel="requests, descriptors", ylim=(0, None))
    other.legend(loc="upper right")
    queue.set(ylabel="tiles", title="Queue", ylim=(0, None))
    probes = [(minute, took) for minute, each in zip(minutes, samples, strict=True) for took, _ in each["probes"]]
    right = [((a.at - start) / 60, a.took) for phase in phases for a in phase.seen.answers if a.what == "ok"]
    latency.semilogy(*np.array(right or [(0, np.nan)]).T, ".", markersize=2, alpha=0.4, label="answered pictures")
    latency.semilogy(*np.array(probes).T, ".", markersize=2, label="/readyz")
    latency.axhline(0.1, color="black", linewidth=0.5)
    latency.set(ylabel="seconds", title="Latency")
    edges = np.arange(0, minutes[-1] + 1 / 6, 1 / 6)
    for what in ("ok", "rejected", "refused", "hung up", "late", "wrong", "unexplained"):
        at = [(a.at - start) / 60 for phase in phases for a in phase.seen.answers if a.what == what]
        if at:
            ends.stairs(np.histogram(at, edges)[0] / 10, edges, label=what)
    refusals = np.array([sum(each["statuses"].get(s, 0) for s in ("429", "503")) for each in samples])
    ends.plot(minutes[1:], np.diff(refusals) / np.diff(minutes) / 60, linewidth=0.5, label="429 and 503, of tries")
    ends.set(ylabel="a second", title="Ends of requests", xlabel="minutes", ylim=(0, None))
    for axes in (memory, queue, latency, ends):
        for phase in phases:
            axes.axvspan((phase.begin - start) / 60, (phase.end - start) / 60, alpha=0.06 + 0.04 * phase.load)
        axes.grid(visible=True, alpha=0.3)
        axes.legend(loc="upper left")
    for phase in phases:
        memory.annotate(phase.name, ((phase.begin - start) / 60, 1.0), xycoords=("data", "axes fraction"), va="top")
    figure.savefig(path, dpi=100)
