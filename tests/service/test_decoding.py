"""Decode workers: what they answer, and what becomes of a file when one of them ends."""

import ctypes
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from service import codec, picture
from service.caller import Caller, Cancellation, Cancelled
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
from service.commands.checks import decoding
from service.decoding import known
from service.decoding.messages import (
    Answer,
    Disconnected,
    Failure,
    Task,
    exception_of,
    failure_of,
    packed,
    parsed,
    receive,
    send,
)
from service.decoding.pool import DecodePool, Ending, NoDecodeWorker
from service.metadata import Metadata, Resolution, Text
from service.picture import Header
from service.settings import Settings
from tests import profiles, standin
from tests.heic_grid import grid_heic

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


def of(pool: DecodePool) -> list[psutil.Process]:
    """The workers of a pool, once all of them run; the tests' pools have two."""
    wait_for(lambda: len(pool.processes) == 2)
    return [psutil.Process(process) for process in pool.processes]


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
    told = exception_of(parsed(Failure, packed(failure_of(error))[0], bytes))
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
        b"[" * 100_000,
        b'{"header": {"format": "png", "height": 1, "width": 1, "icc_profile": {"$bytes": -1}}}',
        b'{"header": {"format": "png", "height": 1, "width": 1, "icc_profile": {"$bytes": true}}}',
        b'{"header": {"format": "png", "height": 1, "width": 1, "icc_profile": {"$bytes": 1e3}}}',
        b'{"header": {"format": "png", "height": 1, "width": 1, "icc_profile": {"$bytes": 300000000}}}',
    ],
)
def test_an_answer_that_makes_no_sense_is_none(text: bytes) -> None:
    with pytest.raises(Disconnected):
        parsed(Answer, text, bytes)


def test_no_more_bytes_are_received_than_a_body_may_bring() -> None:
    texts = [{"keyword": {"$bytes": 1}, "text": {"$bytes": 100 << 20}}] * 3
    header = {"format": "png", "height": 1, "width": 1, "metadata": {"texts": texts}}
    asked: list[int] = []

    def next_bytes(length: int) -> bytes:
        asked.append(length)
        return b""

    with pytest.raises(Disconnected):
        parsed(Answer, json.dumps({"header": header}).encode(), next_bytes)
    assert sum(asked) <= 256 << 20


def test_metadata_comes_over_whole_and_not_as_text() -> None:
    large = bytes(range(256)) * 20_000
    texts = tuple(Text(b"Comment", large[:n], b"en\0", True) for n in (0, 1, 1_000_000))
    metadata = Metadata(large, b"<x/>", b"", Resolution(11_811, 5906.5), texts)
    answer = Answer(header=Header("jpeg", 3, 4, metadata=metadata, icc_profile=large[1:]))
    assert len(packed(answer)[0]) < 1000
    one, other = socket.socketpair()
    with one, other:
        sender = threading.Thread(target=send, args=(one, answer, b"what follows"))
        sender.start()
        assert receive(other, Answer) == answer
        assert other.recv(100) == b"what follows"
        sender.join()


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
        monkeypatch.setattr("service.decoding.process.Worker.ask", lambda *_: (garbage, []))
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


def test_a_worker_that_hangs_costs_no_file(photo: npt.NDArray[np.uint8]) -> None:
    endings: list[Ending] = []
    pool = DecodePool(2, timeout_s=0.5, on_end=endings.append)
    try:
        pool.wait_until_ready()
        data, hanging = file_of(photo), of(pool)
        header = pool.read_header(data, LIMITS)
        for worker in hanging:
            worker.suspend()
        np.testing.assert_array_equal(pool.decode(data, header).pixels, photo)
        assert endings == ["timeout"]
        for worker in hanging:
            if worker.is_running():
                worker.kill()
        np.testing.assert_array_equal(pool.decode(data, header).pixels, photo)
    finally:
        pool.close()


def test_a_file_that_takes_too_long_is_given_up_after_a_second_try(photo: npt.NDArray[np.uint8]) -> None:
    endings: list[Ending] = []
    pool = DecodePool(2, timeout_s=0.2, on_end=endings.append)
    try:
        pool.wait_until_ready()
        data = file_of(np.tile(photo, (10, 10, 1)), "png")
        header = replace(codec.read_header(data, PictureLimits(10**8)), height=1, width=1)  # so that it has 0.2 s alone
        with pytest.raises(DecodingTooCostly) as error:
            pool.decode(data, header)
        assert (error.value.what, error.value.limit) == ("time", 0.2 + 1e-6)
        assert endings == ["timeout"] * 2
    finally:
        pool.close()


def test_a_file_that_takes_too_much_memory_is_refused(
    photo: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    endings: list[Ending] = []
    pool = DecodePool(2, on_end=endings.append)
    try:
        pool.wait_until_ready()
        data = file_of(np.tile(photo, (20, 10, 1)), "jpeg")
        header = pool.read_header(data, PictureLimits(10**8))
        # what 48 megapixels really take, some 290 MB, is more than this
        monkeypatch.setattr("service.decoding.pool._MEMORY", 64 << 20)
        monkeypatch.setattr("service.decoding.pool._MEMORY_A_BYTE", 0)
        monkeypatch.setattr("service.decoding.pool._MEMORY_A_PIXEL", 1)
        with pytest.raises(DecodingTooCostly) as error:
            pool.decode(data, header)
        assert (error.value.what, error.value.limit) == ("memory", (64 << 20) + 48_000_000)
        assert set(endings) == {"memory"}
        monkeypatch.undo()
        assert pool.decode(data, header).pixels.shape == (8000, 6000, 3)
    finally:
        pool.close()


@pytest.fixture(scope="module")
def every_kind(photo: npt.NDArray[np.uint8]) -> dict[str, bytes]:
    """Valid files of every format, and of the kinds that make decoders start threads or take memory."""
    files: dict[str, bytes] = {format_: file_of(photo[:320, :448], format_) for format_ in FORMATS}
    large = np.tile(photo, (2, 2, 1))
    files |= {f"large {format_}": file_of(large, format_) for format_ in FORMATS}
    files["grid heic"] = grid_heic(np.tile(photo, (4, 4, 1))[:1536, :2048], 512)  # as large as phones' tiles
    deep = (photo.astype(np.uint16) * 257)[:200, :200]
    deep_formats: tuple[Format, ...] = ("png", "tiff", "heic")
    for format_ in deep_formats:
        files[f"16-bit {format_}"] = codec.encode(Picture(deep, Header(format_, 200, 200)), format_)
    files["clear png"] = codec.encode(Picture(deep, Header("png", 200, 200), deep[:, :, 0].copy()), "png")
    return files


@pytest.mark.parametrize("threads", [1, 64], ids=lambda threads: f"{threads} threads")
def test_what_came_before_changes_no_answer(every_kind: dict[str, bytes], threads: int) -> None:
    """Any order of valid files, each of them several times in a row, on workers that see all of them."""
    limits, endings = PictureLimits(10**8), list[Ending]()
    wanted = {name: codec.decode(data, codec.read_header(data, limits)) for name, data in every_kind.items()}
    pool = DecodePool(2, timeout_s=60, on_end=endings.append, threads=threads)
    try:
        pool.wait_until_ready()

        def answered(name: str) -> bool:
            found = pool.decode(every_kind[name], pool.read_header(every_kind[name], limits))
            return np.array_equal(found.pixels, wanted[name].pixels)

        wrong = []
        for seed in range(6):
            rng = random.Random(seed)
            order = [name for name in every_kind for _ in range(rng.choice((1, 1, 4)))]
            rng.shuffle(order)
            order[:0] = [rng.choice(order)] * 12  # the same one first, on every worker more than once
            wrong += [(seed, place, name) for place, name in enumerate(order) if not answered(name)]
            if seed % 2 == 0:  # and broken ones between them
                with pytest.raises(MalformedPicture):
                    pool.decode(every_kind["heic"][:-400], codec.read_header(every_kind["heic"], limits))
        assert not wrong
        assert not endings, "none had to be replaced for it"
    finally:
        pool.close()


@pytest.mark.parametrize("format_", FORMATS)
def test_known_good_files_are_decoded(format_: Format) -> None:
    assert known.decodes(format_)
    assert codec.read_header(known.file_of(format_), LIMITS).format == format_


@pytest.mark.skipif(sys.platform != "linux", reason="other systems can't limit another process")
@pytest.mark.parametrize("kind", ["very large jpeg", "very large png", "heic", "grid heic", "avif"])
def test_a_worker_that_lacks_something_costs_no_file(
    every_kind: dict[str, bytes], photo: npt.NDArray[np.uint8], kind: str
) -> None:
    """What a decoder says of a good file then is not told: the file is tried on a new worker."""
    endings: list[Ending] = []
    pool = DecodePool(2, timeout_s=60, on_end=endings.append)
    try:
        pool.wait_until_ready()
        for worker in of(pool):
            # no more memory than it has reserved, and no thread, whose stack takes 8 MB
            _, most = worker.rlimit(psutil.RLIMIT_AS)
            worker.rlimit(psutil.RLIMIT_AS, (1 << 20, most))
        very_large = np.tile(photo, (10, 10, 1)) if kind.startswith("very") else photo
        data = every_kind.get(kind) or file_of(very_large, "jpeg" if kind.endswith("jpeg") else "png")
        header = codec.read_header(data, PictureLimits(10**8))
        for _ in range(3):
            assert pool.read_header(data, PictureLimits(10**8)) == header
            assert pool.decode(data, header).pixels.shape == (header.height, header.width, 3)
        assert endings or not kind.startswith("very"), "small ones find room in what is reserved"
        assert set(endings) <= {"unfit", "memory", "died"}
    finally:
        pool.close()


def test_a_damaged_file_is_the_files_own_fault(pool: DecodePool, endings: list[Ending]) -> None:
    ended = list(endings)
    for format_ in FORMATS:
        whole = known.file_of(format_)
        header = codec.read_header(whole, LIMITS)
        with pytest.raises(MalformedPicture):
            pool.decode(whole[: len(whole) // 2], header)
    assert endings == ended


def test_a_pool_whose_workers_are_all_unfit_says_so(
    photo: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    endings: list[Ending] = []
    pool = DecodePool(2, on_end=endings.append)
    try:
        pool.wait_until_ready()
        wait_for(lambda: len(pool.processes) == 2)  # none may be on its way past what is patched
        assert pool.works
        with monkeypatch.context() as patched:
            # as one would answer that lacks memory from its start on; the real one can't be made to on demand
            patched.setattr("service.decoding.process.Worker.ask", lambda *_: (Answer(unfit=True), []))
            patched.setattr("service.decoding.process.Worker.wait_until_ready", lambda _: frozenset({"png"}))
            with pytest.raises(NoDecodeWorker):
                pool.read_header(file_of(photo), LIMITS)
            for process in pool.processes:
                psutil.Process(process).kill()
            wait_for(lambda: not pool.works)
        wait_for(lambda: pool.works)
        assert pool.read_header(file_of(photo), LIMITS).height == 400
        assert "unfit" in endings
    finally:
        pool.close()


def test_a_worker_that_keeps_memory_is_replaced(photo: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    endings: list[Ending] = []
    pool = DecodePool(2, on_end=endings.append)
    try:
        pool.wait_until_ready()
        data = file_of(photo)
        assert pool.read_header(data, LIMITS).height == 400
        assert not endings
        monkeypatch.setattr("service.decoding.process._GROWN", -(1 << 30))
        with pytest.raises(NoDecodeWorker):
            pool._take(2)
        assert set(endings) == {"grown"}
        monkeypatch.undo()
        assert pool.read_header(data, LIMITS).height == 400
    finally:
        pool.close()


def wait_for(holds: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


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


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="there is no such bound on other systems")


@pytest.fixture
def taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[tuple[DecodePool, list[Ending]]]:
    """A pool whose workers do what a file says, by default of three that give a header a second."""
    for name, value in standin.write(tmp_path).items():
        monkeypatch.setenv(name, value)
    endings: list[Ending] = []
    made = DecodePool(3, on_end=endings.append, **{"timeout_s": 5.0} | getattr(request, "param", {}))
    made.wait_until_ready()
    wait_for(lambda: len(made.processes) == 3)
    yield made, endings
    made.close()


@LINUX
def test_a_worker_that_is_taken_over_reaches_nothing(
    taken_over: tuple[DecodePool, list[Ending]], tmp_path: Path
) -> None:
    pool, _ = taken_over
    folder, keys = tmp_path / "folder", tmp_path / "keys"
    folder.mkdir()
    keys.write_text("secret")
    held = ctypes.create_string_buffer(b"secret" * 10)
    goal = {"keys": str(keys), "folder": str(folder), "workers": pool.processes, "address": ctypes.addressof(held)}
    with pytest.raises(MalformedPicture) as told:
        pool.read_header(standin.file_that(**goal), LIMITS)
    done = json.loads(str(told.value))
    assert len(done) > 20
    assert not {name: result for name, result in done.items() if result == "done"}
    assert keys.read_text() == "secret"
    assert not list(folder.iterdir())
    assert all(psutil.pid_exists(process) for process in pool.processes)


@LINUX
def test_a_kernel_without_landlock_is_told_of(
    photo: npt.NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The workers do without: they open nothing all the same."""
    standin.write(tmp_path)
    with (tmp_path / "sitecustomize.py").open("a") as program:
        program.write("    from service.decoding import containment\n    containment._enter_landlock = lambda: 0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = decoding(Settings())
    assert (check.status, "without Landlock" in check.found, "6.12" in check.do) == ("note", True, True)
    pool, keys = DecodePool(2), tmp_path / "keys"
    try:
        pool.wait_until_ready()
        assert "without Landlock" in caplog.text
        keys.write_text("secret")
        named = ("the file of keys", "any file, in a thread", "any file, by a limit that is raised", "a socket")
        goal = {"keys": str(keys), "folder": "/nowhere", "workers": [], "only": named}
        with pytest.raises(MalformedPicture) as told:
            pool.read_header(standin.file_that(**goal), LIMITS)
        done = json.loads(str(told.value))
        assert done.keys() == {*named}
        assert not {name: result for name, result in done.items() if result == "done"}
        assert pool.decode(file_of(photo), pool.read_header(file_of(photo), LIMITS)).pixels.shape == photo.shape
    finally:
        pool.close()


@LINUX
def test_doctor_says_how_workers_are_contained() -> None:
    assert decoding(Settings()).status == "ok"
    assert decoding(Settings(decode_workers=0)).status == "note"


def test_a_worker_gets_few_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    others = ("PIX2DSLR_API_KEYS", "AWS_SECRET_ACCESS_KEY", "OTEL_EXPORTER_OTLP_HEADERS", "LD_SDK_KEY", "HOME")
    for name in others:
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    pool = DecodePool(2)
    try:
        pool.wait_until_ready()
        variables = psutil.Process(pool.processes[0]).environ()
        assert variables["LC_ALL"] == "C.UTF-8"
        assert not {"secret"} & {*variables.values()}
    finally:
        pool.close()


def test_a_header_that_takes_too_long_has_one_try_of_a_fifth_of_the_time(
    taken_over: tuple[DecodePool, list[Ending]],
) -> None:
    pool, endings = taken_over
    with pytest.raises(DecodingTooCostly) as error:
        pool.read_header(standin.file_that("spins", seconds=60), LIMITS)
    assert error.value.what == "time"
    assert float(error.value.limit) == pytest.approx(1, abs=0.01)
    assert endings == ["timeout"]


@pytest.mark.parametrize("does", ["sleeps", "trickles"])
@pytest.mark.parametrize("taken_over", [{"timeout_s": 1.5}], indirect=True)
def test_an_answer_has_an_end_whatever_comes_of_it(taken_over: tuple[DecodePool, list[Ending]], does: str) -> None:
    """It uses no CPU, so it may have had none; by the clock there are five times as much, twice."""
    pool, endings = taken_over
    began = time.monotonic()
    with pytest.raises(DecodingTooCostly):
        pool.read_header(standin.file_that(does, seconds=100), LIMITS)
    assert endings == ["timeout"] * 2
    assert 2 < time.monotonic() - began < 30


def test_a_file_on_a_busy_machine_is_read(taken_over: tuple[DecodePool, list[Ending]]) -> None:
    pool, endings = taken_over
    with pytest.raises(MalformedPicture):
        pool.read_header(standin.file_that("sleeps", seconds=2), LIMITS)
    assert not endings


@pytest.mark.parametrize("does", ["sleeps", "spins", "trickles"])
def test_a_worker_in_the_middle_of_what_nobody_waits_for_ends(
    taken_over: tuple[DecodePool, list[Ending]], photo: npt.NDArray[np.uint8], does: str
) -> None:
    pool, endings = taken_over
    cancellation = Cancellation()
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(
            pool.read_header, standin.file_that(does, seconds=60), LIMITS, Caller("one", cancellation)
        )
        time.sleep(0.3)
        assert not asked.done()
        began = time.monotonic()
        cancellation.cancel()
        with pytest.raises(Cancelled):
            asked.result(10)
        assert time.monotonic() - began < 2
    assert endings == ["cancelled"]
    assert pool.read_header(file_of(photo), LIMITS, Caller("another")).height == 400
    wait_for(lambda: len(pool.processes) == 3)


def test_what_is_done_in_time_keeps_its_worker(taken_over: tuple[DecodePool, list[Ending]]) -> None:
    pool, endings = taken_over
    for seconds in (0.0, 0.02):
        cancellation, before = Cancellation(), pool.processes
        with ThreadPoolExecutor() as threads:
            asked = threads.submit(
                pool.read_header, standin.file_that("sleeps", seconds=seconds), LIMITS, Caller("one", cancellation)
            )
            cancellation.cancel()
            with pytest.raises(Cancelled):
                asked.result(10)
        assert sorted(pool.processes) == sorted(before)
    assert not endings


def test_who_gives_up_leaves_the_line_at_once(
    taken_over: tuple[DecodePool, list[Ending]], photo: npt.NDArray[np.uint8]
) -> None:
    pool, endings = taken_over
    slow, giving_up = standin.file_that("sleeps", seconds=3), Cancellation()
    with ThreadPoolExecutor(12) as threads:
        busy = [threads.submit(pool.read_header, slow, LIMITS, Caller("one")) for _ in range(2)]
        time.sleep(0.2)
        waiting = [threads.submit(pool.read_header, slow, LIMITS, Caller("one", giving_up)) for _ in range(8)]
        time.sleep(0.2)
        began = time.monotonic()
        giving_up.cancel()
        for each in waiting:
            with pytest.raises(Cancelled):
                each.result(2)
        assert time.monotonic() - began < 1
        assert not any(each.done() for each in busy)
        for each in busy:
            with pytest.raises(MalformedPicture):
                each.result(10)
    assert not endings
    assert pool.decode(file_of(photo), pool.read_header(file_of(photo), LIMITS)).pixels.shape == photo.shape


@pytest.mark.parametrize("does", ["sleeps", "spins", "ends"])
def test_one_client_does_not_take_all_workers(
    taken_over: tuple[DecodePool, list[Ending]], photo: npt.NDArray[np.uint8], does: str
) -> None:
    """Nor by workers that die or are ended, and are started again."""
    pool, _ = taken_over
    data, limits = standin.file_that(does, seconds=20), PictureLimits(10**6)
    enough, hanging_up = threading.Event(), [Cancellation() for _ in range(6)]

    def go_on(number: int) -> None:
        while not enough.is_set():
            try:
                pool.read_header(data, limits, Caller("hostile", hanging_up[number]))
            except (Cancelled, MalformedPicture, DecodingTooCostly):
                hanging_up[number] = Cancellation()

    with ThreadPoolExecutor(6) as threads:
        going = [threads.submit(go_on, number) for number in range(6)]
        slowest = 0.0
        for round_ in range(15):
            time.sleep(0.1)
            began = time.monotonic()
            assert pool.read_header(file_of(photo), limits, Caller(f"another {round_}")).height == 400
            slowest = max(slowest, time.monotonic() - began)
            hanging_up[round_ % 6].cancel()
        enough.set()
        for _ in range(100):
            for cancellation in hanging_up:
                cancellation.cancel()
            time.sleep(0.02)
        for each in going:
            each.result(30)
    assert slowest < 1


def test_a_worker_that_has_had_enough_files_is_replaced_beside_the_others(
    photo: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.decoding.process._LIFE", 5)
    endings: list[Ending] = []
    pool = DecodePool(2, on_end=endings.append)
    try:
        pool.wait_until_ready()
        first = {process.pid for process in of(pool)}
        data = file_of(photo)
        header = pool.read_header(data, LIMITS)

        def replaced() -> bool:
            assert pool.processes
            np.testing.assert_array_equal(pool.decode(data, header).pixels, photo)
            return not first & set(pool.processes)

        wait_for(replaced)
        assert set(endings) == {"worn"}
        wait_for(lambda: len(pool.processes) == 2)
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
    text, behind = packed(Task(length=3, seconds=1, memory=2, limits=LIMITS))
    assert b"header" not in text
    assert not behind
