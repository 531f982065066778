"""Every target, and one that breaks every promise, for the fuzzer's own test."""

import os
import signal
import time
import warnings
from functools import cache
from typing import Final

from tests.fuzz import app, contracts, targets
from tests.fuzz.target import Target


@cache
def all_targets() -> dict[str, Target]:
    """Return them by name."""
    return targets.targets() | contracts.TARGETS | app.TARGETS


def target(name: str) -> Target:
    """Return one of them, or `itself`."""
    return ITSELF if name == "itself" else all_targets()[name]


def _break(data: bytes) -> str:
    match data:
        case b"crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case b"memory":
            bytearray(b"1") * (700 << 20)
        case b"too much memory":
            bytearray(3 << 30)
        case b"warning":
            warnings.warn("on purpose", stacklevel=1)
        case b"noise":
            os.write(2, b"RuntimeWarning: on purpose")
        case b"slow":
            end = time.process_time() + 5
            while time.process_time() < end:
                pass
    return "kept"


WAYS: Final = (b"nothing", b"crash", b"memory", b"too much memory", b"warning", b"noise", b"slow", b"nothing")
"""What the target `itself` is given, by number."""
ITSELF: Final = Target(lambda chance: chance.choice(WAYS), _break)
