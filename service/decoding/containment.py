"""What a process gives up for good: a worker nearly all that it could do to others, the service that others look in.

Linux alone, as much as the kernel has. By ctypes: of the bindings of Landlock on PyPI one has but a release for
development and the others one or two in all, and what is needed of it are two calls.
"""

import ctypes
import os
import struct
import sys
from pathlib import Path
from typing import Final

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

LACKS_LANDLOCK: Final = "without Landlock"
LACKS_SCOPES: Final = "without Landlock's bounds for signals"

_SET_DUMPABLE, _DROP_FROM_BOUNDING_SET, _SET_NO_NEW_PRIVILEGES = 4, 24, 38
"""Of prctl(2)."""
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
"""System calls of landlock(7), on every machine the same."""
_VERSION: Final = 1
_BIND_AND_CONNECT: Final = 3
_ABSTRACT_SOCKETS_AND_SIGNALS: Final = 3
_CAPABILITIES: Final = 0x20080522
"""The version of capset(2)'s structure."""
_MOST_CAPABILITIES: Final = 64

_C: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


def hide() -> None:
    """Let no other process of this user read this one's memory and environment, and no crash write them to a file."""
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if _C is not None:
        _C.prctl(_SET_DUMPABLE, 0, 0, 0, 0)


def contain() -> list[str]:
    """Open no file or socket any more, change none, and reach no other process; what is open stays usable.

    The process must have one thread: most of this is a thread's own, and goes to those that it begins.

    Returns:
        what could not be had, for the operator.
    """
    hide()
    if _C is None or resource is None:
        return ["without bounds of this system"]
    lacks = [] if _has_one_thread() else ["with threads that are not bounded"]
    for capability in range(_MOST_CAPABILITIES):
        _C.prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)
    _C.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    version = _enter_landlock()
    # none of these can be raised again without the right to
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (0, 0))
    _C.capset(struct.pack("=Ii", _CAPABILITIES, 0), bytes(24))
    if version < 1:
        lacks.append(LACKS_LANDLOCK)
    elif version < 6:
        lacks.append(LACKS_SCOPES)
    return lacks


def _has_one_thread() -> bool:
    try:
        return len(list(Path("/proc/self/task").iterdir())) == 1
    except OSError:
        return False


def _enter_landlock() -> int:
    """Give up all that Landlock knows of; return the version of its interface, 0 where there is none."""
    assert _C is not None
    call = _C.syscall
    call.restype = ctypes.c_long
    version = int(call(ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION)))
    if version < 1:
        return 0
    files = (1 << 13 + (version >= 2) + (version >= 3) + (version >= 5)) - 1
    network = _BIND_AND_CONNECT if version >= 4 else 0
    scopes = _ABSTRACT_SOCKETS_AND_SIGNALS if version >= 6 else 0
    rights = struct.pack("=QQQ", files, network, scopes)
    ruleset = int(call(ctypes.c_long(_CREATE_RULESET), rights, ctypes.c_size_t(len(rights)), ctypes.c_uint(0)))
    if ruleset < 0:
        return 0
    try:
        return version if call(ctypes.c_long(_RESTRICT_SELF), ctypes.c_int(ruleset), ctypes.c_uint(0)) == 0 else 0
    finally:
        os.close(ruleset)
