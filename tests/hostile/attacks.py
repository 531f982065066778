"""Attacks of hostile clients on a server of any checkout, and what each costs the others; their sizes are arguments."""

import contextlib
import itertools
import math
import os
import shutil
import struct
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cv2

from benchmarks.pictures import jpeg, of_megapixels, photo
from tests.e2e.conftest import Server, noise, png
from tests.hostile import riff, stand_in
from tests.hostile.attacked import (
    HONEST,
    HOSTILE,
    Probe,
    allow_files,
    ask,
    connect,
    meanwhile,
    megabytes,
    served,
    serving,
    weighed,
)
from tests.hostile.good import jpeg as small_jpeg
from tests.hostile.good import webp
from tests.hostile.jpeg import segment, with_segments
from tests.hostile.png import chunk, head
from tests.hostile.stops import KEY, KEYED, STOPS, Stop
from tests.hostile.wire import request
from tests.hostile.zips import KIND, of_zeros

JPEG_OF_ZEROS: Final = b"\xff\xd8\xff"
BLACK_BMP: Final = struct.pack(
    "<2sIIIIiiHHIIiiII", b"BM", 54 + (63 << 20), 0, 54, 40, 4096, 5376, 1, 24, 0, 63 << 20, 0, 0, 0, 0
)
"""The head of a picture of 22 megapixels, whose samples are 63 MB."""


@dataclass(frozen=True)
class Outcome:
    """What an attack came to.

    Attributes:
        what: as the table has it.
        value: the figure.
        reach: the most that it may be.
        unit: of both.
        details: by case.
    """

    what: str
    value: float
    reach: float
    unit: str
    details: Mapping[str, float] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        """Whether it is as wanted."""
        return self.value <= self.reach


def stops(checkout: Path, plain: Mapping[str, Stop] = STOPS, keyed: Mapping[str, Stop] = KEYED) -> list[Outcome]:
    """How long the event loop stands still: the longest answer of /livez, less the longest with nothing else to do."""
    found: dict[str, float] = {}
    for cases, idle_name, keys in ((plain, "idle", ""), (keyed, "idle, with keys", f"tester:{KEY}")):
        settings: dict[str, Any] = {"api_keys": keys} if keys else {}
        with serving(checkout, **settings) as server, Probe(server) as probe:
            time.sleep(2)
            idle = found[idle_name] = probe.longest()
            for name, stop in cases.items():
                found[name] = max(_median_stop(server, probe, stop) - idle, 0.0)
    worst = max(value for name, value in found.items() if not name.startswith("idle"))
    return [Outcome("longest stop of the loop", worst, 0.05, "s", found)]


def _median_stop(server: Server, probe: Probe, stop: Stop) -> float:
    """Of three tries, since what else the machine does adds to each; of one where that is no question."""
    seconds: list[float] = []
    while len(seconds) < 3 and not (seconds and not 0.03 < seconds[0] < 0.5):
        probe.longest()
        stop(server)
        time.sleep(0.2)
        seconds.append(probe.longest())
    return sorted(seconds)[len(seconds) // 2]


def _send_zips(server: Server, data: bytes, count: int, addresses: int, held: ExitStack) -> None:
    """Send a zip over each of some connections, which stay open until `held` is closed."""
    whole = request(f"Content-Type: {KIND}", f"Content-Length: {len(data)}", body=data)
    for number in range(count):
        with contextlib.suppress(OSError):  # it may be refused
            held.enter_context(connect(server, f"127.0.0.{2 + number % addresses}")).sendall(whole)


def zeros(
    checkout: Path, zips: int = 7, entries: int = 31, hang_up_s: float = 3.0, within_s: float = 120.0
) -> list[Outcome]:
    """How long a 6 kB photo takes while zips of zeros that begin as pictures are read, and after their clients hung up.

    The zips come from one address, and where that costs little from as many as there are zips.
    """
    small, found = _small_photo(), dict[str, float]()
    with serving(checkout) as server:
        usual = served(server, small, within_s)
        for name, head, addresses in (
            ("JPEG", JPEG_OF_ZEROS, 1),
            ("WebP with EXIF", _webp_head(32 << 20), 1),
            (f"JPEG, {zips} addresses", JPEG_OF_ZEROS, zips),
        ):
            data = of_zeros(entries, head, 32)
            seconds, begin, held = [0.0], time.monotonic(), ExitStack()
            _send_zips(server, data, zips, addresses, held)
            hang_up = threading.Timer(hang_up_s, held.close)
            hang_up.start()
            while (passed := time.monotonic() - begin) < within_s:
                if passed > 2 * hang_up_s and seconds[-1] < 2 * usual + 0.5:
                    break
                seconds.append(served(server, small, within_s))
                time.sleep(0.2)
            hang_up.join()
            found[name] = max(seconds)
            if max(seconds) > 10:
                break
    worst = max(found.values())
    return [Outcome("another client's 6 kB photo, JPEG of zeros in zips", worst, 1.0, "s", found | {"usually": usual})]


def _webp_head(length: int) -> bytes:
    """All of a WebP up to EXIF of so many bytes."""
    whole = riff.riff(riff.extended(48, 40, 8), webp()[12:], riff.chunk(b"EXIF", b"", length=length))
    return whole[:4] + struct.pack("<I", len(whole) - 8 + length) + whole[8:]


def _small_photo() -> bytes:
    """A JPEG of some 6 kB."""
    return cv2.imencode(".jpg", photo(96, 128), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


BOMBS: Final = (
    ("JPEG of zeros", JPEG_OF_ZEROS, 1),
    ("black BMP", BLACK_BMP, 1),
    ("black BMP, ten addresses", BLACK_BMP, 10),
)
"""What zip bombs hold, and from how many addresses they come."""


def memory(
    checkout: Path,
    zips: int = 10,
    seconds: float = 10.0,
    after_s: float = 10.0,
    bombs: Sequence[tuple[str, bytes, int]] = BOMBS,
) -> list[Outcome]:
    """Memory of all processes with zips of 1 MB that unzip to 1 GB, and a while after their clients are gone."""
    peaks, kept = dict[str, float](), dict[str, float]()
    for name, start, addresses in bombs:
        data = of_zeros(16, start, 63)
        with serving(checkout) as server:
            served(server, _small_photo(), 30)
            time.sleep(1)
            idle = megabytes(server)
            with weighed(server) as samples, ExitStack() as held:
                _send_zips(server, data, zips, addresses, held)
                time.sleep(seconds)
            time.sleep(after_s)
            peaks |= {f"{name}, idle": idle, name: max(samples)}
            kept[name] = megabytes(server) - idle
    highest = max(value for name, value in peaks.items() if "idle" not in name)
    return [
        Outcome(f"memory with {zips} zip bombs of 1 MB", highest, 1024, "MB", peaks),
        Outcome(f"what stays of it {after_s:g} s after they are gone", max(kept.values()), 100, "MB", kept),
    ]


def promises(
    checkout: Path, queue: int = 4096, photos: int = 10, first_after_s: float = 20.0, every_s: float = 4.0
) -> list[Outcome]:
    """How many of another client's 3-megapixel photos are refused beside one hostile request a second.

    The queue is a quarter of the default: with that, the first promises come due after a minute on a busy machine.
    """
    numbers, statuses, lock = itertools.count(), Counter[str](), threading.Lock()
    one_tile, three = png(noise(60, 60)), jpeg(*of_megapixels(3))
    side = math.ceil(math.sqrt(1.1 * queue) * 64)

    def claim(server: Server) -> None:
        """One PNG that claims more tiles than the queue has places, of a size that none had before."""
        data = head(side, side + 8 * next(numbers), 1, 0) + chunk(b"IDAT", b"\x78\x9c") + chunk(b"IEND")
        status = ask(server, HOSTILE, data, "/enhance?overlap=max", "image/png").status
        with lock:
            statuses[f"hostile {status}"] += 1
        time.sleep(1)

    with serving(checkout, max_queued_tiles=queue) as server:
        begin, seconds = time.monotonic(), list[float]()
        busy = [lambda: ask(server, HOSTILE, one_tile, kind="image/png")] * 2  # so that something is under way
        with meanwhile(lambda: claim(server), *busy):
            for number in range(photos):
                time.sleep(max(0.0, first_after_s + every_s * number - (time.monotonic() - begin)))
                asked = ask(server, HONEST, three)
                seconds.append(asked.seconds)
                with lock:
                    statuses[f"photo {asked.status}"] += 1
    refused = photos - statuses["photo 200"]
    found = {**statuses, "longest photo, s": max(seconds)}
    what = f"3-megapixel photos refused beside a hostile request a second, of {photos}"
    return [Outcome(what, refused, 0, "", found)]


def bodies(checkout: Path, count: int = 14, photos: int = 15, every_s: float = 5.0) -> list[Outcome]:
    """How many of another client's 2 MB photos are refused while two clients hold bodies of 64 MiB at 1.1 kB/s."""
    two, statuses, opened = png(noise(820, 820)), Counter[str](), Counter[str]()

    def hold(server: Server, address: str) -> None:
        """One body; where the server ends it, another comes."""
        with connect(server, address, timeout=0.5) as connection:
            connection.sendall(request("Content-Type: image/png", f"Content-Length: {64 << 20}"))
            opened["bodies opened"] += 1
            while True:
                connection.sendall(bytes(550))
                try:
                    connection.recv(1)  # an answer, or the end
                except TimeoutError:
                    continue
                return

    with serving(checkout) as server:
        addresses = [f"127.0.0.{2 + number % 2}" for number in range(count)]
        with meanwhile(*[lambda address=address: hold(server, address) for address in addresses]):
            time.sleep(1)
            begin = time.monotonic()
            for number in range(photos):
                time.sleep(max(0.0, number * every_s - (time.monotonic() - begin)))
                statuses[f"photo {ask(server, HONEST, two, kind='image/png').status}"] += 1
    what = f"2 MB photos refused while two clients hold bodies at 1.1 kB/s, of {photos}"
    return [Outcome(what, photos - statuses["photo 200"], 0, "", {**statuses, **opened})]


def beside(checkout: Path, others: int = 24, megapixels: float = 0.63) -> list[Outcome]:
    """How long a picture takes beside many of one other client, who sends the next as soon as one is answered."""
    data = jpeg(*of_megapixels(megapixels))
    with serving(checkout) as server:
        alone = sorted(served(server, data, 60) for _ in range(3))[1]
        with meanwhile(*[lambda: ask(server, HOSTILE, data)] * others):
            time.sleep(2)
            seconds = [served(server, data, 60) for _ in range(2)]
    found = {"alone": alone, **{f"beside, {number}": each for number, each in enumerate(seconds, 1)}}
    return [Outcome(f"another client's picture beside {others} of one client's", max(seconds), 2.0, "s", found)]


def connections(checkout: Path, most: int = 4096, probes: int = 10) -> list[Outcome]:
    """How often /readyz is not answered with 200 while another address takes every connection that it gets."""
    files = allow_files(2 * most + 2000)
    most = min(most, files - 600)
    statuses, pause_s = Counter[str](), 0.0
    with ExitStack() as held, serving(checkout, max_connections=most) as server:

        def take() -> None:
            connection = held.enter_context(connect(server, HOSTILE, timeout=5))
            connection.sendall(request(line="GET /livez HTTP/1.1"))
            time.sleep(pause_s)

        for _ in range(most + 100):
            take()
        pause_s = 0.01
        with meanwhile(take):
            for _ in range(probes):
                statuses[f"/readyz {ask(server, HONEST, b'', '/readyz').status}"] += 1
                statuses[f"/enhance {ask(server, HONEST, _small_photo()).status}"] += 1
                time.sleep(0.3)
    refused = probes - statuses["/readyz 200"]
    return [
        Outcome(f"/readyz not 200 while one address takes all connections, of {probes}", refused, 0, "", dict(statuses))
    ]


def worker(checkout: Path) -> list[Outcome]:
    """What a hostile file that has taken a decode worker over can read: keys by four ways."""
    secret = "a-secret-that-nobody-should-read"  # noqa: S105
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "checkout")
        shutil.copytree(checkout / "service", copy / "service", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(stand_in.__file__, copy / "stand_in.py")
        program, report, keys = copy / "service/decoding/worker.py", Path(folder, "report"), Path(folder, "keys")
        keys.write_text(f"other:{secret}\n")
        keys.chmod(0o600)
        os.mkfifo(report)  # a worker may write to no file
        reports = os.open(report, os.O_RDWR | os.O_NONBLOCK)
        begin = 'if __name__ == "__main__":'
        first = f"import stand_in\nstand_in.install(open({str(report)!r}, 'w'), {secret!r}, {str(keys)!r})\n"
        program.write_text(program.read_text().replace(begin, first + begin))
        variables = {"AWS_SECRET_ACCESS_KEY": secret}
        with serving(copy, variables, api_keys=f"tester:{KEY}", api_keys_file=keys) as server:
            marked = with_segments(segment(0xFE, stand_in.MARK), base=small_jpeg())
            with server.client() as client:
                client.post("/enhance", content=marked, headers={"Content-Type": "image/jpeg", "X-API-Key": KEY})
            found = stand_in.read(os.read(reports, 1 << 16).decode())
        os.close(reports)
    read = sum(value for what, value in found.items() if what.startswith(("keys", "the file")))
    return [Outcome("ways by which a taken-over decode worker reads keys or memory, of 4", read, 0, "", found)]


ATTACKS: Final[Mapping[str, Callable[[Path], list[Outcome]]]] = {
    "stops": stops,
    "zeros": zeros,
    "memory": memory,
    "promises": promises,
    "bodies": bodies,
    "beside": beside,
    "connections": connections,
    "worker": worker,
}
"""By the name that `--only` takes."""
