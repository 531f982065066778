"""The hostile corpus against a real server: each case is refused in time and in words, and costs nobody else."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.e2e.conftest import Serve, Server, noise, pixels_of, png
from tests.hostile.corpus import GROUPS, cases
from tests.hostile.sending import send

GOOD = noise(24, 20)
_KEPT_MB = 96
"""What a group may leave behind: allocators keep some of what they got, and libraries load what they had not needed."""
_WAIT_S = 20


class Watch:
    """Looks at a server's process and all below it."""

    def __init__(self, server: Server) -> None:
        self._process = psutil.Process(server.process.pid)

        self._processes: list[psutil.Process] = []
        self.look()

    def look(self) -> None:
        """See which processes there are now."""
        self._processes = [self._process, *self._process.children(recursive=True)]

    def _sum(self, measure: Callable[[psutil.Process], float]) -> float:
        total = 0.0
        for process in self._processes:
            try:
                total += measure(process)
            except (psutil.Error, OSError):  # it ended meanwhile
                continue
        return total

    def megabytes(self) -> float:
        """Resident memory."""
        return self._sum(lambda process: process.memory_info().rss) / 2**20

    def files(self) -> float:
        """Open file descriptors."""
        return self._sum(lambda process: process.num_fds())

    def forget_peak(self) -> None:
        """Begin to measure the peak anew (proc(5), clear_refs)."""
        self.look()
        for process in self._processes:
            try:
                Path(f"/proc/{process.pid}/clear_refs").write_text("5")
            except OSError:
                continue

    def peak(self) -> float:
        """Most resident memory since, in megabytes."""
        return self._sum(_high_water) / 2**20


def _high_water(process: psutil.Process) -> float:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0.0)


@pytest.fixture(scope="module")
def hostile_server(serve_session: Serve, identity_folder: Path) -> Server:
    return serve_session(models=identity_folder, slow_step_s=0.02)


def settled(watch: Watch, measure: Callable[[], float], most: float) -> float:
    """Wait until a measure has come down; return what it is then."""
    until = time.monotonic() + _WAIT_S
    while (now := measure()) > most and time.monotonic() < until:
        time.sleep(0.05)
        watch.look()
    return now


def test_there_are_enough_and_each_has_its_name() -> None:
    names = Counter[str]()
    refused = 0
    for case in cases():
        names[case.identity] += 1
        refused += not case.harmless
    assert not [name for name, count in names.items() if count > 1]
    assert refused >= 900, "cases that have to be refused"


def workers_ended(server: Server) -> list[str]:
    """What /metrics says of decode workers that crashed or had to be killed."""
    with server.client() as client:
        lines = client.get("/metrics").text.splitlines()
    ended = [line for line in lines if line.startswith("pix2dslr_decode_workers_ended_total")]
    return [line for line in ended if '"worn"' not in line]  # replaced as usual, after so many files


@pytest.mark.parametrize("group", GROUPS)
def test_each_case_is_refused_and_the_next_request_served(hostile_server: Server, group: str) -> None:
    wrong = []
    watch = Watch(hostile_server)
    picture = png(GOOD)
    with hostile_server.client() as client:

        def good_one() -> bool:
            answer = client.post("/enhance", files={"image": picture}, data={"format": "png"})
            return answer.status_code == 200 and np.array_equal(pixels_of(answer.content), GOOD)

        for _ in range(8):
            assert good_one()
        ended = workers_ended(hostile_server)
        files, memory, lines = watch.files(), watch.megabytes(), len(hostile_server.log)
        for case in cases(group):
            watch.forget_peak()
            before, began = watch.peak(), time.monotonic()
            faults = send(case, client)
            took, grew = time.monotonic() - began, watch.peak() - before
            if took > case.seconds:
                faults.append(f"it took {took:.1f} s")
            if grew > case.megabytes:
                faults.append(f"memory grew by {grew:.0f} MB on the way")
            if not good_one():
                faults.append("the next good picture was not served")
            wrong += [f"{case.identity}: {fault}" for fault in faults]
        assert good_one()
    assert not wrong, f"{len(wrong)} of them:\n" + "\n".join(wrong)
    assert hostile_server.metric("pix2dslr_queue_tiles") == 0
    assert hostile_server.process.poll() is None
    assert workers_ended(hostile_server) == ended, "a known case costs no worker: it is refused before"
    # threads of the pool may open a few more; the client's own connections come and go
    assert settled(watch, watch.files, files + 8) <= files + 8
    assert settled(watch, watch.megabytes, memory + _KEPT_MB) <= memory + _KEPT_MB
    bad = ("Traceback", "unexpected", "the event loop was busy")
    told = [line for line in hostile_server.log[lines:] if any(each in line for each in bad)]
    assert not told, "".join(hostile_server.log[lines:][-40:])
