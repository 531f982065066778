"""What came before changes no answer: valid pictures of every kind to one service, in many orders."""

import random
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from service import codec
from service.codec import FORMATS, Header, Picture
from service.decoding import known
from tests.e2e.conftest import Serve
from tests.heic_grid import grid_heic

ORDERS = 12
AT_ONCE = 6


@pytest.fixture(scope="module")
def files(photo: npt.NDArray[np.uint8]) -> dict[str, bytes]:
    """Valid files: small and large ones of every format, grids, 16 bits, alpha."""
    small, large = photo[:120, :160], np.tile(photo, (3, 2, 1))
    made: dict[str, bytes] = {}
    for format_ in FORMATS:
        made[f"known {format_}"] = known.file_of(format_)
        for name, pixels in (("small", small), ("large", large)):
            made[f"{name} {format_}"] = codec.encode(Picture(pixels, Header(format_, *pixels.shape[:2])), format_)
        clear = Picture(small, Header(format_, 120, 160), small[:, :, 0].copy())
        made[f"clear {format_}"] = codec.encode(clear, format_)
        deep = Picture(small.astype(np.uint16) * 257, Header(format_, 120, 160))
        made[f"16-bit {format_}"] = codec.encode(deep, format_)
    made["grid heic"] = grid_heic(np.tile(photo, (4, 4, 1))[:1536, :2048], 512)  # as large as phones' tiles
    return made


def test_every_valid_picture_is_answered_in_any_order(
    serve_session: Serve, identity_folder: str, files: dict[str, bytes]
) -> None:
    server = serve_session(models=identity_folder)
    answers: dict[str, bytes] = {}
    wrong: list[str] = []
    with server.client() as client, ThreadPoolExecutor(AT_ONCE) as threads:

        def ask(name: str) -> tuple[str, httpx.Response]:
            return name, client.post("/enhance?strength=0&format=png", content=files[name])

        sent = 0
        for seed in range(ORDERS):
            rng = random.Random(seed)
            order = [name for name in files for _ in range(rng.choice((1, 1, 3)))]
            rng.shuffle(order)
            if seed % 3 == 0:
                order[:0] = ["grid heic"] * 12  # on every worker more than once, before anything else
            sent += len(order)
            for name, answer in threads.map(ask, order):
                if answer.status_code != 200:
                    wrong.append(f"order {seed}: {name}: {answer.status_code} {answer.text}")
                elif answers.setdefault(name, answer.content) != answer.content:
                    wrong.append(f"order {seed}: {name}: another answer than before")
            broken = client.post("/enhance?strength=0", content=files["large heic"][:-5000])
            assert broken.status_code == 400
        assert not wrong
        assert client.get("/readyz").status_code == 200
    assert server.metric("pix2dslr_decode_workers_ended_total") == 0
    print(f"{ORDERS} orders of {len(files)} files, {sent} requests, none refused")
