import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from service.caller import Cancelled
from service.generator import Generator
from service.scheduler import (
    BatchDone,
    Closed,
    DeadlineExceeded,
    DeviceFailed,
    Enhanced,
    InferenceFailed,
    Job,
    QueueFull,
    Scheduler,
)
from service.spec import CONTEXT, TILE
from tests.onnx_files import write_generator


class Gate:
    """The real identity generator behind a gate, so that a test decides when a batch runs."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.open = threading.Event()
        self.entered = threading.Event()
        self.batches: list[int] = []
        self.broken = False

    def __call__(self, tiles: npt.NDArray[np.uint8], context: npt.NDArray[np.uint8]) -> npt.NDArray[np.floating]:
        self.batches.append(len(tiles))
        self.entered.set()
        assert self.open.wait(30)
        if self.broken:
            raise RuntimeError("the device is gone")
        return self.generator(tiles, context)


@pytest.fixture
def gate(identity: Generator) -> Gate:
    return Gate(identity)


@pytest.fixture
def scheduler(gate: Gate) -> Iterator[Scheduler]:
    made = Scheduler([lambda _: gate], batch_sizes=(1, 2, 4), max_tiles=16)  # type: ignore[list-item, return-value]
    yield made
    gate.open.set()
    made.close()


def in_threads(client: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=client, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def submit(job: Job, count: int, level: int = 0) -> Future[list[Enhanced]]:
    """Queue tiles of one level."""

    def cut(_: int, out: npt.NDArray[np.uint8]) -> None:
        out[:] = level

    return job.submit(count, cut)


def test_tiles_of_several_pictures_share_a_batch(scheduler: Scheduler, gate: Gate) -> None:
    with scheduler.admit(1, "c", 30) as first, scheduler.admit(2, "c", 30) as one, scheduler.admit(2, "c", 30) as two:
        futures = [submit(first, 1, 1)]
        assert gate.entered.wait(30)
        futures += [submit(one, 2, 2), submit(two, 2, 3)]
        gate.open.set()
        answers = [job.wait(future) for job, future in zip((first, one, two), futures, strict=True)]
    assert gate.batches == [1, 4]
    for level, answer in enumerate(answers, 1):
        np.testing.assert_allclose(np.array(answer, np.float32), level / 255, atol=1e-7)
    assert scheduler.waiting == 0


def _copy(tiles: npt.NDArray[np.uint8], i: int, out: npt.NDArray[np.uint8]) -> None:
    out[:] = tiles[i]


def test_each_picture_gets_its_own_tiles_back_under_contention(identity: Generator) -> None:
    scheduler = Scheduler([lambda _: identity], batch_sizes=(1, 2, 4, 8), lanes=3)
    wrong: list[int] = []

    def client(number: int) -> None:
        rng = np.random.default_rng(number)
        for _ in range(5):
            mine = rng.integers(0, 256, (int(rng.integers(1, 6)), TILE, TILE, 3), np.uint8)
            with scheduler.admit(len(mine), "c", 60) as job:
                job.set_context(np.full((CONTEXT, CONTEXT, 3), number, np.uint8))
                answer = job.wait(job.submit(len(mine), partial(_copy, mine)))
            if not np.array_equal(np.rint(np.stack(answer) * 255).astype(np.uint8), mine):
                wrong.append(number)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    scheduler.close()
    assert wrong == []


def test_a_full_queue_refuses_and_says_when_to_come_back(scheduler: Scheduler, gate: Gate) -> None:
    gate.open.set()
    with scheduler.admit(10, "c", 30) as job:
        job.wait(submit(job, 2))
        assert scheduler.waiting == 8
        with scheduler.admit(8, "c", 30):
            assert scheduler.waiting == 16
        with pytest.raises(QueueFull) as full:
            scheduler.admit(9, "c", 30)
        assert (full.value.tiles, full.value.limit) == (9, 16)
        assert full.value.retry_after >= 1
    assert scheduler.waiting == 0


def test_a_picture_larger_than_the_queue_is_taken_when_nothing_waits(scheduler: Scheduler) -> None:
    with scheduler.admit(1000, "c", 30):
        assert scheduler.waiting == 1000


def test_cancelling_drops_what_waits_before_the_next_batch(scheduler: Scheduler, gate: Gate) -> None:
    with scheduler.admit(1, "c", 30) as running, scheduler.admit(8, "c", 30) as given_up:
        done = submit(running, 1)
        assert gate.entered.wait(30)
        dropped = submit(given_up, 8)
        given_up.cancel()
        gate.open.set()
        running.wait(done)
        with pytest.raises(Cancelled):
            given_up.wait(dropped)
        with pytest.raises(Cancelled):
            submit(given_up, 1)
    assert gate.batches == [1]
    assert scheduler.waiting == 0


def test_a_deadline_ends_the_waiting(scheduler: Scheduler, gate: Gate) -> None:
    with scheduler.admit(1, "c", 0.05) as job:
        future = submit(job, 1)
        assert gate.entered.wait(30)
        with pytest.raises(DeadlineExceeded, match=r"0\.05 s"):
            job.wait(future)
    assert scheduler.waiting == 0


def scheduler_on(path: Path, **more: Any) -> Scheduler:
    generator = Generator(path, device="cpu", threads=1)
    return Scheduler([lambda _: generator], **{"batch_sizes": (1, 2, 4, 8), **more})


def test_a_tile_that_the_device_fails_on_costs_its_picture_and_no_other(tmp_path: Path) -> None:
    scheduler = scheduler_on(write_generator(tmp_path / "m.onnx", fail_on_light=True), lanes=2)
    outcomes: dict[int, list[Enhanced] | Exception] = {}

    def client(number: int) -> None:
        level = 255 if number % 4 == 0 else 0
        try:
            with scheduler.admit(6, "c", 60) as job:
                futures = [submit(job, 3, level), submit(job, 3, level)]
                outcomes[number] = [tile for future in futures for tile in job.wait(future)]
        except InferenceFailed as error:
            outcomes[number] = error

    in_threads(client, 24)
    assert scheduler.alive, "it does black tiles still"
    assert scheduler.waiting == 0
    scheduler.close()
    for number in range(24):
        outcome = outcomes[number]
        if number % 4 == 0:
            assert isinstance(outcome, InferenceFailed)
        else:
            assert isinstance(outcome, list)
            assert np.stack(outcome).shape == (6, TILE, TILE, 3)


def test_nothing_more_of_a_picture_runs_once_the_device_failed_on_it(tmp_path: Path) -> None:
    failures: list[int] = []
    model = write_generator(tmp_path / "m.onnx", fail_on_light=True)
    scheduler = scheduler_on(model, on_failure=lambda _, tiles: failures.append(tiles))
    with scheduler.admit(800, "c", 60) as job:
        futures = [submit(job, 8, 255) for _ in range(100)]
        for future in futures:
            with pytest.raises(InferenceFailed):
                job.wait(future)
        with pytest.raises(InferenceFailed):
            submit(job, 1)
    scheduler.close()
    assert failures == [8, 8, 4, 2, 1, 1, 1]
    assert scheduler.waiting == 0


def test_a_device_that_fails_now_and_then_is_not_noticed(tmp_path: Path) -> None:
    failures: list[int] = []
    model = write_generator(tmp_path / "m.onnx", fails=0.1)
    scheduler = scheduler_on(model, lanes=2, on_failure=lambda _, tiles: failures.append(tiles))
    tiles = np.random.default_rng(0).integers(0, 256, (400, TILE, TILE, 3), np.uint8)
    for _ in range(20):  # each fails somewhere with a chance of 99.5 %
        with scheduler.admit(len(tiles), "c", 60) as job:
            answer = job.wait(job.submit(len(tiles), partial(_copy, tiles)))
        np.testing.assert_array_equal(np.rint(np.stack(answer) * 255).astype(np.uint8), tiles)
        if failures:
            break
    scheduler.close()
    assert failures
    assert scheduler.waiting == 0


def test_a_device_that_always_fails_is_told_to_all_who_wait(tmp_path: Path) -> None:
    model = write_generator(tmp_path / "m.onnx", fails=0.9999, seed=1)
    scheduler = scheduler_on(model, batch_sizes=(1,))
    with scheduler.admit(1, "c", 30) as job:
        job.wait(submit(job, 1))
    assert scheduler.alive
    outcomes: list[type[BaseException]] = []

    def client(_: int) -> None:
        with scheduler.admit(3, "c", 60) as job, pytest.raises((DeviceFailed, InferenceFailed)) as failed:
            job.wait(submit(job, 3, 7))
        outcomes.append(failed.type)

    in_threads(client, 5)
    assert outcomes == [DeviceFailed] * 5
    assert (scheduler.alive, scheduler.trouble) == (False, "failed")
    assert scheduler.waiting == 0
    with pytest.raises(DeviceFailed):
        scheduler.admit(1, "c", 30)
    scheduler.close()
    assert scheduler.trouble == "failed"


def test_a_device_that_comes_back_in_time_is_not_noticed(scheduler: Scheduler, gate: Gate) -> None:
    gate.open.set()
    gate.broken = True
    with scheduler.admit(4, "c", 30) as job:
        future = submit(job, 4, 7)
        while len(gate.batches) < 10:  # down to single tiles, and black ones
            time.sleep(0.001)
        gate.broken = False
        assert np.stack(job.wait(future)).shape == (4, TILE, TILE, 3)
    assert scheduler.alive


def two_devices(first: Gate, second: Gate, lanes: int = 1) -> Scheduler:
    devices = [lambda _, gate=gate: gate for gate in (first, second)]
    return Scheduler(devices, batch_sizes=(1, 2, 4), lanes=lanes)


def test_two_devices_share_one_queue(identity: Generator) -> None:
    first, second = Gate(identity), Gate(identity)
    seen: list[BatchDone] = []
    scheduler = Scheduler([lambda _: first, lambda _: second], batch_sizes=(1, 2, 4), on_batch=seen.append)  # type: ignore[list-item, return-value]
    with scheduler.admit(8, "c", 30) as job:
        future = submit(job, 8, 9)
        assert first.entered.wait(30)
        assert second.entered.wait(30), "while the first one works"
        first.open.set()
        second.open.set()
        assert {tuple(np.unique(np.rint(tile * 255))) for tile in job.wait(future)} == {(9.0,)}
    scheduler.close()
    assert {batch.device for batch in seen} == {0, 1}
    assert sum(batch.tiles for batch in seen) == 8


def test_what_a_failing_device_holds_goes_to_another_and_nobody_notices(identity: Generator) -> None:
    lanes = 2
    good, bad = Gate(identity), Gate(identity)
    good.open.set()
    bad.open.set()
    scheduler = two_devices(good, bad, lanes)
    alone = scheduler._admission.seconds_per_tile
    tiles = np.random.default_rng(0).integers(0, 256, (40, TILE, TILE, 3), np.uint8)
    bad.broken = True
    deadline = time.monotonic() + 60
    while scheduler.working == (True, True):
        assert time.monotonic() < deadline
        with scheduler.admit(len(tiles), "c", 60) as job:
            answer = job.wait(job.submit(len(tiles), partial(_copy, tiles)))
            assert job.queue_s >= 0
        np.testing.assert_array_equal(np.rint(np.stack(answer) * 255).astype(np.uint8), tiles)
    assert scheduler.working == (True, False)
    assert (scheduler.alive, scheduler.waiting) == (True, 0)
    assert scheduler._admission.lanes == lanes
    assert alone == 0
    used = len(bad.batches)
    with scheduler.admit(len(tiles), "c", 60) as job:
        job.wait(job.submit(len(tiles), partial(_copy, tiles)))
    assert len(bad.batches) <= used + lanes, "but for a probe under way, nothing more is tried there"
    good.broken = True
    with scheduler.admit(3, "c", 60) as job, pytest.raises(DeviceFailed):
        job.wait(submit(job, 3))
    assert (scheduler.working, scheduler.trouble) == ((False, False), "failed")
    scheduler.close()


def test_a_tile_that_breaks_devices_does_not_go_through_them_all(identity: Generator) -> None:
    class Breaks(Gate):
        def __call__(self, tiles: npt.NDArray[np.uint8], context: npt.NDArray[np.uint8]) -> npt.NDArray[np.floating]:
            self.broken = self.broken or bool((tiles == 255).any())
            return super().__call__(tiles, context)

    gates = [Breaks(identity) for _ in range(3)]
    for gate in gates:
        gate.open.set()
    devices = [lambda _, gate=gate: gate for gate in gates]
    scheduler = Scheduler(devices, batch_sizes=(1,))
    with scheduler.admit(1, "c", 60) as job, pytest.raises(InferenceFailed):
        job.wait(submit(job, 1, 255))
    assert sum(gate.broken for gate in gates) == 2
    with scheduler.admit(2, "c", 60) as job:
        assert len(job.wait(submit(job, 2, 7))) == 2
    scheduler.close()


class Small:
    """The real identity generator with memory for few tiles at once."""

    def __init__(self, generator: Generator, most: int) -> None:
        self.generator = generator
        self.most = most
        self.batches: list[int] = []

    def __call__(self, tiles: npt.NDArray[np.uint8], context: npt.NDArray[np.uint8]) -> npt.NDArray[np.floating]:
        self.batches.append(len(tiles))
        if len(tiles) > self.most:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 534773760")
        return self.generator(tiles, context)


def test_where_memory_runs_out_batches_are_halved_and_stay_so_for_a_while(identity: Generator) -> None:
    small = Small(identity, 3)
    scheduler = Scheduler([lambda _: small], batch_sizes=(1, 2, 4, 8))  # type: ignore[list-item, return-value]
    with scheduler.admit(160, "c", 60) as job:
        assert len(job.wait(submit(job, 160))) == 160
    assert small.batches == [8, 4, *[2] * 80], "halved until it fits, and then no batch fails any more"
    small.most = 8
    with scheduler.admit(1600, "c", 60) as job:
        job.wait(submit(job, 1600))
    scheduler.close()
    assert small.batches[-1] == 8, "until larger ones are tried again"


def test_a_tile_that_can_not_be_cut_costs_its_picture_and_no_other(scheduler: Scheduler, gate: Gate) -> None:
    def break_off(*_: object) -> None:
        raise ValueError("no such tile")

    with scheduler.admit(1, "c", 30) as first, scheduler.admit(2, "c", 30) as bad, scheduler.admit(2, "c", 30) as good:
        futures = [submit(first, 1)]
        assert gate.entered.wait(30)
        futures += [bad.submit(2, break_off), submit(good, 2, 7)]
        gate.open.set()
        first.wait(futures[0])
        with pytest.raises(InferenceFailed):
            bad.wait(futures[1])
        np.testing.assert_allclose(np.array(good.wait(futures[2]), np.float32), 7 / 255, atol=1e-7)
    assert gate.batches == [1, 2]
    assert scheduler.waiting == 0


def test_a_batch_that_does_not_come_back_is_seen_and_not_waited_for(identity: Generator) -> None:
    gate = Gate(identity)
    scheduler = Scheduler([lambda _: gate], lanes=2, batch_timeout_s=0.2)  # type: ignore[list-item, return-value]
    with scheduler.admit(1, "c", 30) as job:
        future = submit(job, 1)
        assert gate.entered.wait(30)
        deadline = time.monotonic() + 30
        while scheduler.alive:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert scheduler.trouble == "hangs"
        scheduler.close()
        with pytest.raises(Closed):
            job.wait(future)
    assert scheduler.waiting == 0
    gate.open.set()


def test_a_batch_that_comes_back_late_is_forgiven(identity: Generator) -> None:
    gate = Gate(identity)
    scheduler = Scheduler([lambda _: gate], batch_timeout_s=0.1)  # type: ignore[list-item, return-value]
    with scheduler.admit(1, "c", 30) as job:
        future = submit(job, 1)
        while scheduler.alive:
            time.sleep(0.01)
        gate.open.set()
        job.wait(future)
    assert scheduler.alive
    scheduler.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("lanes", [1, 2])
def test_a_thread_that_ends_is_seen_and_nobody_waits_for_it(identity: Generator, lanes: int) -> None:
    deadly = True

    def enhance(tiles: npt.NDArray[np.uint8], context: npt.NDArray[np.uint8]) -> npt.NDArray[np.floating]:
        if deadly and tiles.any():
            raise SystemExit  # which ends a thread without a word
        return identity(tiles, context)

    scheduler = Scheduler([lambda _: enhance], lanes=lanes)  # type: ignore[list-item, return-value]
    with scheduler.admit(1, "c", 30) as job, pytest.raises(InferenceFailed):
        job.wait(submit(job, 1, 7))
    deadly = False
    deadline = time.monotonic() + 30
    while scheduler.alive:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    if lanes == 1:
        while scheduler.trouble != "failed":  # with nobody left to do it, nothing more is taken
            assert time.monotonic() < deadline
            time.sleep(0.001)
        with pytest.raises(DeviceFailed):
            scheduler.admit(1, "c", 30)
    else:
        assert scheduler.trouble == "ended"
        with scheduler.admit(4, "c", 30) as job:
            assert len(job.wait(submit(job, 4, 7))) == 4, "the other one goes on"
    assert scheduler.waiting == 0
    scheduler.close()


def test_closing_fails_what_waits_and_takes_nothing_more(identity: Generator) -> None:
    gate = Gate(identity)
    scheduler = Scheduler([lambda _: gate], batch_sizes=(1,))  # type: ignore[list-item, return-value]
    with scheduler.admit(2, "c", 30) as job:
        future = submit(job, 2)
        assert gate.entered.wait(30)
        closing = threading.Thread(target=scheduler.close)
        closing.start()
        with pytest.raises(Closed):
            job.wait(future)
        gate.open.set()
        closing.join()
    assert not scheduler.alive
    with pytest.raises(Closed):
        scheduler.admit(1, "c", 30)


def test_batches_and_times_are_told(identity: Generator) -> None:
    seen: list[BatchDone] = []
    scheduler = Scheduler([lambda _: identity], batch_sizes=(1, 2), on_batch=seen.append)
    start = time.monotonic()
    with scheduler.admit(5, "c", 30) as job:
        job.wait(submit(job, 5))
    scheduler.close()
    assert [batch.tiles for batch in seen] == [2, 2, 1]
    assert 0 < job.inference_s <= time.monotonic() - start
    assert job.inference_s >= sum(batch.seconds for batch in seen)
    assert 0 <= job.queue_s <= time.monotonic() - start


def test_jobs_that_come_and_go_at_random_leave_nothing_behind(identity: Generator) -> None:
    scheduler = Scheduler([lambda _: identity], batch_sizes=(1, 2, 4), max_tiles=64, lanes=2)
    dice = random.Random(0)

    def client(give_up: bool) -> None:
        try:
            with scheduler.admit(4, "c", 30) as job:
                future = submit(job, 4)
                if give_up:
                    job.cancel()
                job.wait(future)
        except (Cancelled, QueueFull):
            pass

    threads = [threading.Thread(target=client, args=(dice.random() < 0.5,)) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    scheduler.close()
    assert scheduler.waiting == 0


def test_lanes_share_what_waits(identity: Generator) -> None:
    gate = Gate(identity)
    scheduler = Scheduler([lambda _: gate], batch_sizes=(1, 2, 4, 8), lanes=2)  # type: ignore[list-item, return-value]
    with scheduler.admit(8, "c", 30) as job:
        future = submit(job, 8)
        while len(gate.batches) < 2:
            time.sleep(0.001)
        gate.open.set()
        job.wait(future)
    scheduler.close()
    assert gate.batches == [4, 4]


def test_a_picture_that_would_not_be_done_in_time_is_refused_at_once(scheduler: Scheduler, gate: Gate) -> None:
    gate.open.set()
    with scheduler.admit(4, "c", 30) as job:
        job.wait(submit(job, 4))
        per_tile = scheduler._admission.seconds_per_tile
        assert per_tile > 0
    with scheduler.admit(8, "c", 30):
        # eight tiles of its own and as many of the other's
        with scheduler.admit(8, "c", 17 * per_tile):
            pass
        with pytest.raises(QueueFull):
            scheduler.admit(8, "c", 15 * per_tile)


def test_what_a_lane_finds_late_is_told_as_late(tmp_path: Path) -> None:
    """By an exception of its own, with all that it says: several rows share the one that the lane made."""
    model = write_generator(tmp_path / "m.onnx")
    scheduler = scheduler_on(model)
    with scheduler.admit(4, "c", 0.05) as job:
        future: Future[list[npt.NDArray[np.float32]]] = Future()
        future.set_exception(DeadlineExceeded(0.05))
        with pytest.raises(DeadlineExceeded) as error:
            job.wait(future)  # type: ignore[arg-type]
        assert error.value is not future.exception()
        assert (error.value.seconds, str(error.value)) == (0.05, "not done within 0.05 s")
    scheduler.close()
