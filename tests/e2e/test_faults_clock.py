"""The wall clock jumps by a day in the middle of requests; nothing that the service does depends on it."""

import datetime as dt
import email.utils
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.e2e.conftest import Serve, Server, png
from tests.e2e.test_live import open_live
from tests.e2e.test_problems import GOOD

DAY = dt.timedelta(days=1)
BIG = png(np.zeros((1600, 1600, 3), np.uint8))


@pytest.fixture
def jumping(serve_session: Serve, tmp_path: Path) -> tuple[Server, Path]:
    """A server whose wall clock is set by a file; its monotonic clock is the real one."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed (Debian: faketime)")
    control = tmp_path / "faketime"
    control.write_text("+0")
    fake = {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(control),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    return serve_session(variables=fake, keep_alive_s=30), control


def told_time(answer: httpx.Response) -> dt.datetime:
    return email.utils.parsedate_to_datetime(answer.headers["date"])


def test_the_clock_jumps_in_the_middle_of_requests(jumping: tuple[Server, Path]) -> None:
    server, control = jumping
    # one connection for all that comes: had the server closed it, the next request might fail on it
    kept = httpx.Client(base_url=server.url, timeout=60, trust_env=False)

    def enhance(_: int) -> httpx.Response:
        with server.client() as client:
            return client.post("/enhance", files={"image": BIG})

    with ThreadPoolExecutor(3) as pool, kept, open_live(server) as live:
        for days in (1, -1):
            now = told_time(kept.get("/livez"))
            answers = [pool.submit(enhance, i) for i in range(3)]
            while not server.metric("pix2dslr_queue_tiles"):
                time.sleep(0.01)
            control.write_text(f"{days:+d}d")
            deadline = time.monotonic() + 60
            # from the day after to the day before it is two days
            while abs(told_time(kept.get("/livez")) - now) < DAY / 2:
                assert time.monotonic() < deadline, "the clock never jumped: this test tests nothing"
                assert kept.get("/readyz").status_code == 200
            assert not all(answer.done() for answer in answers), "the clock jumped in the middle"
            live.send(GOOD)
            live.until("result")
            for answer in answers:
                assert answer.result().status_code == 200
                stages = answer.result().headers["server-timing"].split(", ")
                assert all(0 <= float(stage.partition("=")[2]) < 300_000 for stage in stages)
            assert kept.post("/enhance", files={"image": GOOD}).status_code == 200
            assert kept.get("/readyz").status_code == 200
    assert server.stop() == 0
