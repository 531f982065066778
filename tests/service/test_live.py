import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.live import Frame, Frames, TooManyWait


def photo(number: int) -> Frame[str]:
    return Frame(number, live=False, item=f"photo {number}")


def live(number: int) -> Frame[str]:
    return Frame(number, live=True, item=f"frame {number}")


def test_photos_keep_their_order() -> None:
    frames: Frames[str] = Frames(3)
    for number in (1, 2, 3):
        assert frames.add(photo(number)) == []
    assert [frames.take(), frames.take(), frames.take()] == [photo(1), photo(2), photo(3)]
    assert frames.take() is None


def test_no_more_photos_wait_than_may() -> None:
    frames: Frames[str] = Frames(2)
    frames.add(photo(1))
    frames.add(photo(2))
    with pytest.raises(TooManyWait) as raised:
        frames.add(photo(3))
    assert raised.value.limit == 2
    frames.take()
    frames.add(photo(4))
    assert [frames.take(), frames.take()] == [photo(2), photo(4)]


def test_a_late_live_frame_gives_way_and_a_photo_does_not() -> None:
    frames: Frames[str] = Frames(1)
    frames.add(photo(1))
    assert frames.add(live(2)) == []
    assert frames.add(live(3)) == [2]
    assert [frames.take(), frames.take(), frames.take()] == [photo(1), live(3), None]


def test_removing_one_or_all() -> None:
    frames: Frames[str] = Frames(3)
    for number in (1, 2, 3):
        frames.add(photo(number))
    assert frames.remove(2) == [2]
    assert frames.remove(2) == []
    assert frames.remove() == [1, 3]
    assert frames.take() is None


@given(st.lists(st.sampled_from(["live", "take"]), max_size=60))
def test_of_live_frames_only_the_latest_is_ever_taken(steps: list[str]) -> None:
    frames: Frames[str] = Frames(1)
    came, begun, dropped = 0, [], []
    for step in steps:
        if step == "live":
            came += 1
            dropped += frames.add(live(came))
        elif frame := frames.take():
            assert frame.number == came, "nothing newer waits"
            begun.append(frame.number)
    left = frames.remove()
    assert len(left) <= 1
    assert sorted(begun + dropped + left) == list(range(1, came + 1)), "each frame ends once"
