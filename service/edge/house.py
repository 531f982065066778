"""What the edge of one app remembers: its keys, what clients used of their limits, the room for bodies."""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from starlette.requests import HTTPConnection

from service.decoding.pool import decode_workers
from service.edge.clients import ClientLimits
from service.edge.places import Places
from service.edge.rooms import Rooms
from service.edge.wire import Wire
from service.keys import KeyRing, parse_keys
from service.memory import usable_bytes
from service.settings import Settings

_SERVICE: Final = 512 << 20
"""Bytes that the service takes with nothing to do, its connections and its threads; of a large memory more."""
_WORKER: Final = 64 << 20
"""Bytes of a decode worker with nothing to do, beyond what it shares with others."""
_LEAST_FOR_PICTURES: Final = 256 << 20


@dataclass(frozen=True)
class House:
    """The edge's memory; all of it is used in the event loop alone, but for the keys, which a thread reads again."""

    keys: KeyRing
    limits: ClientLimits
    rooms: Rooms

    @classmethod
    def of(cls, settings: Settings) -> "House":
        """Begin as the settings say.

        Raises:
            BrokenKeys: the file of API keys can't be read.
        """
        fixed = settings.api_keys
        parts = memory_of(settings, usable_bytes())
        keys = () if fixed is None else parse_keys(fixed.get_secret_value().replace(",", "\n"))
        return cls(
            KeyRing(keys, settings.api_keys_file),
            ClientLimits(settings.rate_limit, settings.client_concurrency, settings.rate_limit_tiles),
            Rooms(parts["bodies"], parts["files of zips"], parts["pictures and answers"]),
        )

    def wire(
        self,
        settings: Settings,
        max_connections: int,
        on_refusal: Callable[[str], None],
        draining: Callable[[], bool],
    ) -> Wire:
        """Return what the connections of a listener share; the last two are as `Wire` has them."""
        return Wire(
            Places(max_connections),
            [ipaddress.ip_network(each) for each in settings.trusted_proxies],
            settings.header_timeout_s,
            settings.body_timeout_s,
            settings.send_timeout_s,
            settings.min_rate,
            self.rooms.bodies,
            on_refusal,
            draining,
        )


def house_of(connection: HTTPConnection) -> House:
    """Return the house that a request came to."""
    house: House = connection.app.state.house
    return house


def memory_of(settings: Settings, usable: int) -> Mapping[str, int]:
    """Share out the memory that may be used.

    Args:
        settings: what they don't say is left for pictures, and at least 256 MiB.
        usable: bytes of memory.

    Returns:
        Bytes by what takes them. A worker has one file besides, whose header it reads.
    """
    workers = decode_workers() if settings.decode_workers is None else settings.decode_workers
    parts = {
        "service": max(_SERVICE, usable // 8),
        "decode workers": workers * (_WORKER + settings.max_body_bytes),
        "bodies": settings.max_buffered_bytes,
        "files of zips": settings.max_buffered_bytes // 8,
    }
    left = max(usable - sum(parts.values()), _LEAST_FOR_PICTURES)
    return {**parts, "pictures and answers": settings.max_picture_bytes or left}
