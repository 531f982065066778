"""Watches a server from a process of its own: `python -m benchmarks.soak_watch URL PID GENERATOR_PID FILE`.

A process of its own, so that what it times is the server and not the load's own event loop. It writes a line of JSON a
second, until its standard input is closed.
"""

import http.client
import json
import re
import select
import sys
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psutil

PROBES: Final = 5
"""Readiness probes a second, each over a connection of its own, as an orchestrator sends them."""

_SAMPLE: Final = re.compile(r"^(pix2dslr_\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


def memory(process: psutil.Process) -> dict[str, float]:
    """Resident and proportional memory of one process in MB (2^20 bytes); the latter NaN where it isn't told."""
    resident = process.memory_info().rss / 2**20
    try:
        told = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{process.pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        told = None
    return {"rss": resident, "pss": int(told[1]) / 1024 if told else float("nan")}


def look(process: psutil.Process, generator: psutil.Process, host: str) -> dict[str, Any]:
    """Take one sample of the processes and of the server's metrics."""
    sample: dict[str, Any] = {"workers_rss": 0.0, "workers_pss": 0.0, "workers": 0}
    with process.oneshot():
        sample |= memory(process)
        sample |= {"descriptors": process.num_fds(), "threads": process.num_threads()}
        sample["cpu"] = sum(process.cpu_times()[:2])
    for child in process.children(recursive=True):
        try:
            its, cpu = memory(child), sum(child.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
        sample["workers"] += 1
        sample["workers_rss"] += its["rss"]
        sample["workers_pss"] += its["pss"]
        sample["cpu"] += cpu
    sample["generator_cpu"] = sum(generator.cpu_times()[:2])
    connection = http.client.HTTPConnection(host, timeout=30)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    statuses: dict[str, float] = {}
    for name, labels, value in _SAMPLE.findall(text):
        if name == "pix2dslr_requests_total":
            status = dict(part.split("=") for part in labels.split(","))["status"].strip('"')
            statuses[status] = statuses.get(status, 0.0) + float(value)
        elif name in ("pix2dslr_queue_tiles", "pix2dslr_requests_in_flight", "pix2dslr_tiles_total"):
            key = name.removeprefix("pix2dslr_")
            sample[key] = sample.get(key, 0.0) + float(value)
    sample["statuses"] = statuses
    return sample


def probe(host: str) -> tuple[float, int]:
    """Ask for /readyz; seconds from connecting to the whole answer, and its status, 0 where there was none."""
    start = time.perf_counter()
    connection = http.client.HTTPConnection(host, timeout=30)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        answer.read()
        status = answer.status
    except OSError:
        status = 0
    finally:
        connection.close()
    return time.perf_counter() - start, status


def main() -> None:
    """Watch until standard input ends."""
    url, pid, generator_pid, path = sys.argv[1:]
    host, process, generator = urlsplit(url).netloc, psutil.Process(int(pid)), psutil.Process(int(generator_pid))
    with Path(path).open("w") as file:
        due = time.monotonic()
        while True:
            probes = []
            late = 0.0
            for _ in range(PROBES):
                due = max(due + 1 / PROBES, time.monotonic())
                if select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
                    return
                # how late this process itself woke up: what the machine, not the server, adds to a probe
                late = max(late, time.monotonic() - due)
                probes.append(probe(host))
            try:
                sample = look(process, generator, host)
            except (psutil.NoSuchProcess, OSError) as error:
                sample = {"lost": str(error)}
            sample |= {
                "at": time.time(),
                "probes": probes,
                "late": late,
                "own_cpu": sum(psutil.Process().cpu_times()[:2]),
            }
            file.write(json.dumps(sample) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
