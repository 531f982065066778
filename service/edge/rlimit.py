"""How many connections the process may have open, by the files that the system lets it open."""

from typing import Final

_KEPT: Final = 512
"""File descriptors for all but connections: generators, threads, workers, and connections that are being refused."""

_FEWEST: Final = 16


def room_for_connections(wanted: int) -> int:
    """Raise the soft limit on open files as far as needed and allowed; return how many connections it has room for.

    Args:
        wanted: how many there should be.

    Returns:
        `wanted`, or fewer where the hard limit is too low.
    """
    try:
        import resource  # not on every system
    except ImportError:
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _KEPT
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    return max(_FEWEST, soft - _KEPT, soft // 4)
