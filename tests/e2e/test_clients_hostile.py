"""What one client costs the others, in small: `python -m tests.hostile.clients` does the same at full size."""

import sys

import pytest

from tests.hostile import attacks
from tests.hostile.attacks import BOMBS, Outcome
from tests.hostile.clients import HERE
from tests.hostile.stops import KEYED, STOPS, pings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no 127.0.0.2 for a client")

_FEW = (
    "form of 1000 equal names",
    "zip of 16 names of 65 kB",
    "3000 fields x 50",
    "body of 60 MB",
    "WebSocket: text of 60 MB",
    "WebSocket: messages in 9000 pieces",
)
_FEW_KEYED = ("240 kB of one-byte chunks, no key", "/openapi.json x 100, no key")


def assert_kept(outcomes: list[Outcome], *most: float) -> None:
    """Each is at most as high as wanted; in small, and beside other tests, that is less exact than `reach`."""
    assert not [each for each, limit in zip(outcomes, most, strict=True) if each.value > limit]


def test_nothing_that_a_client_sends_keeps_the_event_loop_busy() -> None:
    plain = {name: STOPS[name] for name in _FEW} | {"pings": pings(seconds=2)}
    assert_kept(attacks.stops(HERE, plain, {name: KEYED[name] for name in _FEW_KEYED}), 0.3)


def test_files_of_clients_that_hung_up_keep_nobody_waiting() -> None:
    assert_kept(attacks.zeros(HERE, zips=4, entries=16, hang_up_s=1, within_s=30), 3)


def test_zip_bombs_take_little_memory_and_leave_none() -> None:
    assert_kept(attacks.memory(HERE, seconds=3, after_s=5, bombs=BOMBS[-1:]), 1200, 150)


def test_who_never_comes_back_keeps_nobody_out_of_the_queue() -> None:
    assert_kept(attacks.promises(HERE, queue=1024, photos=4, first_after_s=4, every_s=1), 0)


def test_slow_bodies_leave_room_for_others() -> None:
    assert_kept(attacks.bodies(HERE, photos=3, every_s=1), 0)


def test_a_picture_does_not_wait_for_all_of_another_clients() -> None:
    assert_kept(attacks.beside(HERE, others=16, megapixels=0.3), 3)


def test_one_address_leaves_connections_for_probes() -> None:
    assert_kept(attacks.connections(HERE, most=200, probes=4), 0)


def test_a_decode_worker_reads_no_keys() -> None:
    assert_kept(attacks.worker(HERE), 0)
