import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.retries import (
    ALONE,
    LOST_AFTER_S,
    Attempt,
    Cap,
    Outage,
    after_failure,
    in_sizes,
    is_out_of_memory,
    longest_s,
    pause_s,
)

SIZES = (1, 2, 4, 8)


@pytest.mark.parametrize(
    "text",
    [
        # as ONNX Runtime 1.31 said it on a CPU with too little memory
        "onnxruntime::BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 1",
        # as people with GPUs report them
        "CUDA failure 2: out of memory ; GPU=0",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
        "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
        "bfc_arena.cc Available memory of 1048576 is smaller than requested bytes of 4585490",
        "std::bad_alloc",
    ],
)
def test_want_of_memory_is_known_by_its_words(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text))


def test_other_errors_are_no_want_of_memory() -> None:
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("CUDA failure 700: an illegal memory access was encountered"))
    assert not is_out_of_memory(RuntimeError("indices element out of data bounds, idx=7 must be within [-1,0]"))


def run_all(
    count: int, sizes: tuple[int, ...], bad: set[int], most: int | None = None
) -> tuple[set[int], set[int], int]:
    """Run a batch on a device that fails on bad tiles, and for want of memory on more than `most` tiles at once.

    Returns:
        The tiles that were done, those that were given up, and how many tiles were run in all.
    """
    todo, done, given_up, ran = [Attempt(tuple(range(count)))], set[int](), set[int](), 0
    while todo:
        attempt = todo.pop()
        assert len(attempt.items) in sizes
        ran += len(attempt.items)
        too_many = most is not None and len(attempt.items) > most
        if not too_many and not bad & set(attempt.items):
            done |= set(attempt.items)
            continue
        following = after_failure(attempt, too_many, sizes)
        if not following:
            given_up |= set(attempt.items)
        assert sum(len(each.items) for each in following) in (0, len(attempt.items))
        todo += reversed(following)
    return done, given_up, ran


@given(st.sampled_from([(1, 2, 4, 8), (1, 3, 16), (1,)]), st.data())
def test_only_the_tiles_that_fail_are_given_up(sizes: tuple[int, ...], data: st.DataObject) -> None:
    count = data.draw(st.sampled_from(sizes))
    bad = data.draw(st.sets(st.integers(0, count - 1)))
    done, given_up, ran = run_all(count, sizes, bad)
    assert given_up == bad
    assert done == set(range(count)) - bad
    # each level of halves, the batch twice, and a bad tile alone
    assert ran <= count * (2 + count.bit_length()) + ALONE * len(bad)


@given(st.integers(1, 8))
def test_want_of_memory_gives_up_nothing_that_fits_alone(most: int) -> None:
    done, given_up, ran = run_all(8, SIZES, set(), most)
    assert (done, given_up) == (set(range(8)), set())
    assert ran <= 8 * 4, "the same batch is not run again"


def test_a_batch_that_fails_once_is_run_again_as_it_is() -> None:
    (again,) = after_failure(Attempt((1, 2, 3, 4)), False, SIZES)
    assert again.items == (1, 2, 3, 4)
    assert [each.items for each in after_failure(again, False, SIZES)] == [(1, 2), (3, 4)]
    assert [each.items for each in after_failure(Attempt((1, 2, 3, 4)), True, SIZES)] == [(1, 2), (3, 4)]
    assert [each.items for each in after_failure(Attempt((1, 2, 3, 4)), True, (1, 4))] == [(1,), (2,), (3,), (4,)]


def test_what_is_left_of_a_batch_is_run_in_sizes_that_there_are() -> None:
    assert [each.items for each in in_sizes(Attempt(tuple("abcdefg")), SIZES)] == [tuple("abcd"), tuple("ef"), ("g",)]
    assert in_sizes(Attempt(()), SIZES) == []
    whole = Attempt((1, 2), failures=1)
    assert in_sizes(whole, SIZES) == [whole]


class TestCap:
    def test_is_halved_and_comes_back(self) -> None:
        cap = Cap(SIZES)
        cap.failed(8)
        cap.failed(8)  # another lane's, begun before
        assert cap.most == 4
        cap.succeeded(2)
        for good in range(100):
            assert cap.most == 4, good
            cap.succeeded(4)
        assert cap.most == 8

    def test_is_raised_less_often_where_that_failed(self) -> None:
        cap, raised_after = Cap(SIZES), []
        for _ in range(8):
            cap.failed(8)
            good = 0
            while cap.most < 8:
                cap.succeeded(4)
                good += 1
            raised_after.append(good)
        assert raised_after == [100, 200, 400, 800, 1600, 3200, 3200, 3200]
        for _ in range(3200):
            cap.succeeded(8)
        cap.failed(8)
        for _ in range(100):
            cap.succeeded(4)
        assert cap.most == 8, "and as at first, once the larger one was good for as long"

    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=60))
    def test_is_always_one_of_the_sizes(self, events: list[tuple[bool, int]]) -> None:
        cap = Cap((1, 3, 16))
        for good, _ in events:
            (cap.succeeded if good else cap.failed)(cap.most)
            assert cap.most in (1, 3, 16)


class TestOutage:
    def test_needs_time_and_failures(self) -> None:
        outage = Outage()
        outage.failed(100.0)
        assert not outage.lost(100.0 + 10 * LOST_AFTER_S), "one slow batch"
        for _ in range(9):
            outage.failed(100.1)
        assert not outage.lost(100.2)
        assert outage.lost(100.0 + LOST_AFTER_S)

    def test_is_over_with_one_success(self) -> None:
        outage = Outage()
        for second in range(100):
            outage.failed(float(second))
        outage.succeeded()
        assert not outage.lost(200.0)
        outage.failed(200.0)
        assert outage.since == 200.0


def test_pauses_grow_to_a_second() -> None:
    assert [pause_s(probes) for probes in (1, 2, 3, 4, 5, 50)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_a_batch_may_take_many_times_what_it_should() -> None:
    assert longest_s(0.0, 30) == longest_s(0.1, 30) == 30
    assert longest_s(2.0, 30) == 100
