"""Decode workers: what they answer, and what becomes of a file when one of them ends."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from service import codec, picture
from service.codec import (
    FORMATS,
    DecodingTooCostly,
    Format,
    MalformedPicture,
    Picture,
    PictureLimits,
    PictureTooLarge,
    UnsupportedFormat,
)
from service.decoding.messages import Answer, Disconnected, Failure, Task, exception_of, failure_of, parsed
from service.decoding.pool import DecodePool, Ending, NoDecodeWorker
from service.picture import Header
from tests import profiles

LIMITS = PictureLimits(10**6)

pytestmark = pytest.mark.skipif(not DecodePool.possible(), reason="files are decoded in the service here")


@pytest.fixture(scope="module")
def endings() -> list[Ending]:
    return []


@pytest.fixture(scope="module")
def pool(endings: list[Ending]) -> Iterator[DecodePool]:
    made = DecodePool(2, on_end=endings.append)
    made.wait_until_ready()
    yield made
    made.close()


def file_of(photo: npt.NDArray[np.uint8], format_: Format = "png", **said: object) -> bytes:
    header = Header(format_, *photo.shape[:2])
    return codec.encode(Picture(photo, replace(header, **said)), format_)  # type: ignore[arg-type]


def workers() -> list[psutil.Process]:
    """The running decode workers of this process."""
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "service.decoding.worker" in child.cmdline()
    ]


@pytest.mark.parametrize("format_", FORMATS)
def test_workers_answer_what_the_codec_does(pool: DecodePool, photo: npt.NDArray[np.uint8], format_: Format) -> None:
    data = file_of(photo, format_)
    header = pool.read_header(data, LIMITS)
    assert header == codec.read_header(data, LIMITS)
    mine, other = pool.decode(data, header), codec.decode(data, header)
    np.testing.assert_array_equal(mine.pixels, other.pixels)
    assert mine.header == other.header
    assert mine.alpha is None


def test_all_that_a_picture_has_comes_over(pool: DecodePool, photo: npt.NDArray[np.uint8]) -> None:
    deep, alpha = photo.astype(np.uint16) * 257, np.arange(400 * 600, dtype=np.uint16).reshape(400, 600)
    said = codec.read_header(file_of(photo), LIMITS).metadata
    said = replace(said, exif=b"II*\0\x08\0\0\0\0\0\0\0\0\0", xmp=b"<x/>" + bytes(range(256)).hex().encode())
    header = Header("png", 400, 600, metadata=said, icc_profile=profiles.display_p3())
    data = codec.encode(Picture(deep, header, alpha), "png")
    header = pool.read_header(data, LIMITS)
    assert header == codec.read_header(data, LIMITS)
    assert header.metadata.xmp
    assert header.icc_profile == profiles.display_p3()
    found = pool.decode(data, header)
    np.testing.assert_array_equal(found.pixels, deep)
    assert found.alpha is not None
    np.testing.assert_array_equal(found.alpha, alpha)
    assert found.header == header
    found.pixels[0, 0] = 7  # it is the caller's


def test_what_the_codec_refuses_is_refused_in_its_words(pool: DecodePool, photo: npt.NDArray[np.uint8]) -> None:
    data = file_of(photo)
    with pytest.raises(UnsupportedFormat):
        pool.read_header(b"GIF89a" + bytes(40), LIMITS)
    with pytest.raises(PictureTooLarge) as large:
        pool.read_header(data, PictureLimits(1000))
    assert (large.value.pixels, large.value.limit) == (240_000, 1000)
    half = data[: len(data) // 2] + data[-12:]
    for broken in (half, data[:200] + bytes(100) + data[300:]):
        with pytest.raises(MalformedPicture) as mine:
            pool.decode(broken, pool.read_header(broken, LIMITS))
        with pytest.raises(MalformedPicture) as other:
            codec.decode(broken, codec.read_header(broken, LIMITS))
        assert str(mine.value) == str(other.value)


@pytest.mark.parametrize(
    "error",
    [
        picture.UnsupportedFormat("none"),
        picture.MalformedPicture("broken"),
        picture.PictureTooLarge(10, 5),
        picture.DecodingTooCostly("memory", 5),
        MemoryError("all gone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_come_over_whole(error: Exception) -> None:
    told = exception_of(parsed(Failure, failure_of(error).model_dump_json().encode()))
    assert type(told) is type(error)
    assert (str(told), vars(told)) == (str(error), vars(error))


def test_an_unknown_exception_says_nothing_of_itself() -> None:
    told = exception_of(failure_of(RuntimeError("/secret/path of libsomething")))
    assert isinstance(told, MalformedPicture)
    assert "secret" not in str(told)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"header": {"format": "exe", "height": 1, "width": 1}}',
        b'{"header": {"format": "png", "height": "tall", "width": 1}}',
        b'{"decoded": {"bits": 32, "alpha": false, "converted": false}}',
        b'{"more": 1}',
        b"\x80\x04\x95\x0f\0\0\0\0\0\0\0\x8c\x05posix\x94.",
    ],
)
def test_an_answer_that_makes_no_sense_is_none(text: bytes) -> None:
    with pytest.raises(Disconnected):
        parsed(Answer, text)


def test_an_exception_that_is_not_ours_is_no_answer() -> None:
    for failure in (
        Failure(kind="SystemExit"),
        Failure(kind="PictureTooLarge", facts={"limit": 1}),
        Failure(kind="PictureTooLarge", facts={"pixels": 2, "limit": "many"}),  # found by tests/fuzz
    ):
        with pytest.raises(Disconnected):
            exception_of(failure)


def test_a_worker_that_names_an_exception_of_its_own_is_replaced(
    photo: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    endings: list[Ending] = []
    pool = DecodePool(2, on_end=endings.append)
    try:
        pool.wait_until_ready()
        data = file_of(photo)
        # what only one that was taken over would say
        garbage = Answer(failure=Failure(kind="SystemExit"))
        monkeypatch.setattr("service.decoding.pool._Worker.ask", lambda *_: (garbage, []))
        with pytest.raises(MalformedPicture):
            pool.read_header(data, LIMITS)
        monkeypatch.undo()
        assert endings == ["died"] * 3
        assert pool.read_header(data, LIMITS).height == 400
    finally:
        pool.close()


def test_workers_that_are_killed_are_replaced_and_nobody_notices(
    pool: DecodePool, photo: npt.NDArray[np.uint8]
) -> None:
    data = file_of(photo)
    for _ in range(3):
        for worker in workers():
            worker.kill()
        found = pool.decode(data, pool.read_header(data, LIMITS))
        np.testing.assert_array_equal(found.pixels, photo)


def test_one_that_is_killed_in_the_middle_costs_no_picture(
    pool: DecodePool, endings: list[Ending], photo: npt.NDArray[np.uint8]
) -> None:
    data = file_of(photo)
    header = pool.read_header(data, LIMITS)
    ended = len(endings)
    # stopped, so that its task is surely under way when it is killed
    stopped = workers()
    for worker in stopped:
        worker.suspend()
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(pool.decode, data, header)
        while not answer.running():
            pass
        for worker in stopped:
            worker.kill()
        np.testing.assert_array_equal(answer.result(60).pixels, photo)
    assert set(endings[ended:]) == {"died"}


def test_a_file_that_takes_too_long_is_given_up(photo: npt.NDArray[np.uint8]) -> None:
    endings: list[Ending] = []
    pool = DecodePool(2, timeout_s=0.5, on_end=endings.append)
    try:
        pool.wait_until_ready()
        data = file_of(photo)
        header = pool.read_header(data, LIMITS)
        for worker in workers():
            worker.suspend()
        with pytest.raises(DecodingTooCostly) as error:
            pool.decode(data, header)
        assert (error.value.what, error.value.limit) == ("time", 0.5 + 0.24)
        assert endings == ["timeout"]
        for worker in workers():
            if worker.status() == psutil.STATUS_STOPPED:
                worker.kill()
        np.testing.assert_array_equal(pool.decode(data, header).pixels, photo)
    finally:
        pool.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the limit holds on Linux alone")
def test_a_file_that_takes_too_much_memory_is_refused_and_the_worker_stays(
    pool: DecodePool, photo: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = file_of(np.tile(photo, (10, 10, 1)), "bmp")
    header = pool.read_header(data, PictureLimits(10**8))
    monkeypatch.setattr("service.decoding.pool._MEMORY", 16 << 20)
    monkeypatch.setattr("service.decoding.pool._MEMORY_A_BYTE", 1)
    monkeypatch.setattr("service.decoding.pool._MEMORY_A_PIXEL", 1)
    before = {worker.pid for worker in workers()}
    with pytest.raises(DecodingTooCostly) as error:
        pool.decode(data, header)
    assert error.value.what == "memory"
    monkeypatch.undo()
    assert pool.decode(data, header).pixels.shape == (4000, 6000, 3)
    assert {worker.pid for worker in workers()} == before


def test_headers_do_not_wait_for_large_pictures(photo: npt.NDArray[np.uint8]) -> None:
    pool = DecodePool(2, timeout_s=60)
    try:
        pool.wait_until_ready()
        data, small = file_of(np.tile(photo, (8, 8, 1))), file_of(photo)
        limits = PictureLimits(10**8)
        header = pool.read_header(data, limits)
        with ThreadPoolExecutor(4) as threads:
            large = [threads.submit(pool.decode, data, header) for _ in range(4)]
            for _ in range(5):
                assert pool.read_header(small, limits).height == 400
            assert sum(each.done() for each in large) < 4, "they were read while large ones were under way"
            for each in large:
                assert each.result(120).pixels.shape == (3200, 4800, 3)
    finally:
        pool.close()


def test_a_closed_pool_leaves_nobody_waiting(photo: npt.NDArray[np.uint8]) -> None:
    pool = DecodePool(2)
    pool.wait_until_ready()
    pool.close()
    with pytest.raises(NoDecodeWorker):
        pool.read_header(file_of(photo), LIMITS)


def test_a_worker_ends_with_its_service() -> None:
    """However that ends: here by SIGKILL."""
    program = """if True:
        from service.decoding.pool import DecodePool
        pool = DecodePool(2)
        pool.wait_until_ready()
        print("ready", flush=True)
        input()
    """
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        service.stdout.readline()
        started = psutil.Process(service.pid).children()
        assert started
        # what an init system sends to all of a service's processes does not end them
        for worker in started:
            worker.send_signal(signal.SIGTERM)
            worker.send_signal(signal.SIGINT)
        assert all(worker.is_running() for worker in started)
        service.kill()
    _, alive = psutil.wait_procs(started, 30)
    assert not alive


def test_a_worker_knows_none_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIX2DSLR_API_KEYS", "secret")
    pool = DecodePool(2)
    try:
        pool.wait_until_ready()
        assert not any("secret" in str(worker.environ()) for worker in workers() if worker.is_running())
    finally:
        pool.close()


def test_nothing_is_left_open(pool: DecodePool, photo: npt.NDArray[np.uint8]) -> None:
    data = file_of(photo)
    header = pool.read_header(data, LIMITS)
    before = psutil.Process().num_fds()
    for _ in range(20):
        pool.decode(data, pool.read_header(data, LIMITS))
        with pytest.raises(MalformedPicture):
            pool.decode(data[:500], header)
    assert psutil.Process().num_fds() <= before


def test_a_task_names_only_what_it_needs() -> None:
    text = Task(length=3, seconds=1, memory=2, limits=LIMITS).model_dump_json(exclude_defaults=True)
    assert "header" not in text
