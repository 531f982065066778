"""Who a request comes from, and how many pictures and requests of one client are taken."""

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from pyrate_limiter import GCRA, Duration, MonotonicClock, Rate
from pyrate_limiter.abstracts.algorithm import State
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.edge.errors import RateLimited, TooManyAtOnce
from service.edge.refusal import refuse

_CLIENT: Final = "pix2dslr.client"
_PEER: Final = "pix2dslr.peer"
_UNKNOWN: Final = "unknown"
_RATE: Final = GCRA()
_MINUTE_MS: Final = 60_000
_MOST_REMEMBERED: Final = 100_000
"""Clients whose rate is remembered, a number each; of more, those that were away longest begin anew."""


def name_client(scope: Scope, name: str) -> None:
    """Note whose request it is: the name of a key."""
    scope[_CLIENT] = f"key {name}"


def client_of(scope: Scope) -> str:
    """Return what tells clients apart: the name of the key that was sent, or without keys the address.

    Of IPv6 it is the network of 64 bits: a household has no less, and may choose any address in it.
    """
    if _CLIENT in scope:
        named: str = scope[_CLIENT]
        return named
    network = network_of(scope["client"][0] if scope.get("client") else "")
    if network == _UNKNOWN and _PEER in scope:
        return f"address {network} of {scope[_PEER]}"
    return f"address {network}"


def network_of(host: str) -> str:
    """Return an address, of IPv6 the network of 64 bits that it is in; `unknown` where it is none."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _UNKNOWN
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
        return str(address.ipv4_mapped)
    return str(address)


class Forwarded(ProxyHeadersMiddleware):
    """uvicorn's reading of X-Forwarded-For and X-Forwarded-Proto, which notes the proxy that the request came through.

    Those whose address a proxy does not tell are one client of that proxy's, and nobody else's.
    """

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan" and scope.get("client"):
            scope[_PEER] = scope["client"][0]
        await super().__call__(scope, receive, send)


class _PerMinute:
    """How many of a unit each client may have a minute, at once or spread.

    The rate is GCRA, a token bucket, on a clock that no change of the time of day moves.
    """

    def __init__(self, most: int, unit: str, clock: Callable[[], int]) -> None:
        self._most = most
        self._unit = unit
        self._clock = clock
        self._rates = [Rate(most, Duration.MINUTE)] if most else []
        self._states: OrderedDict[str, State] = OrderedDict()

    def count(self, client: str, count: int) -> None:
        if not self._rates or not count:
            return
        state = self._states.pop(client, None) or _RATE.initial(self._rates)
        self._states[client], decision = _RATE.step(self._rates, state, self._clock(), count)
        if len(self._states) > _MOST_REMEMBERED:
            self._states.popitem(last=False)
        if not decision.allowed:
            wait_ms = decision.retry_after_ms or _MINUTE_MS
            raise RateLimited(self._most, max(1, math.ceil(wait_ms / 1000)), self._unit)


class ClientLimits:
    """Pictures and tiles a minute and requests at once, each client for itself; for one event loop."""

    def __init__(
        self,
        pictures_a_minute: int = 0,
        at_once: int = 0,
        tiles_a_minute: int = 0,
        clock: Callable[[], int] | None = None,
    ) -> None:
        """Begin with everybody allowed.

        Args:
            pictures_a_minute: how many a client may send, at once or spread; 0 sets no limit.
            at_once: how many requests a client may have under way; 0 sets no limit.
            tiles_a_minute: how many its pictures may have, likewise.
            clock: milliseconds that only grow.
        """
        self.pictures_a_minute = pictures_a_minute
        self._at_once = at_once
        self._tiles_a_minute = tiles_a_minute
        clock = clock or MonotonicClock().now
        self._pictures = _PerMinute(pictures_a_minute, "pictures", clock)
        self._tiles = _PerMinute(tiles_a_minute, "tiles", clock)
        self._under_way: dict[str, int] = {}

    def most_pictures(self, otherwise: int) -> int:
        """Return how many pictures one request may hold: more than a minute's could never be let in."""
        return min(self.pictures_a_minute, otherwise) if self.pictures_a_minute else otherwise

    def count(self, client: str, pictures: int = 1) -> None:
        """Count pictures of a client.

        Args:
            client: as `client_of` names it.
            pictures: no more than `most_pictures` allows.

        Raises:
            RateLimited: they are too many for now; none is counted.
        """
        self._pictures.count(client, pictures)

    def count_tiles(self, client: str, tiles: int) -> None:
        """Count the tiles of a picture; one that has more than a minute's takes the whole minute.

        Raises:
            RateLimited: they are too many for now; none is counted.
        """
        self._tiles.count(client, min(tiles, self._tiles_a_minute))

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """Hold one of the client's places.

        Raises:
            TooManyAtOnce: it has none left.
        """
        if not self._at_once:
            yield
            return
        held = self._under_way.get(client, 0)
        if held >= self._at_once:
            raise TooManyAtOnce(self._at_once)
        self._under_way[client] = held + 1
        try:
            yield
        finally:
            self._under_way[client] -= 1
            if not self._under_way[client]:
                del self._under_way[client]


class LimitClients:
    """Answers 429 to a client with too many requests under way, or too many pictures: each request is at least one.

    Further pictures of a body are counted once it is read, and those of a WebSocket as they come.
    """

    def __init__(self, app: ASGIApp, limits: ClientLimits, paths: frozenset[str]) -> None:
        self.app = app
        self.limits = limits
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        works = scope["type"] == "websocket" or (scope["type"] == "http" and scope["method"] == "POST")
        if not works or scope["path"] not in self.paths:
            await self.app(scope, receive, send)
            return
        client = client_of(scope)
        with ExitStack() as held:
            try:
                held.enter_context(self.limits.place(client))
                if scope["type"] == "http":
                    self.limits.count(client)
            except (TooManyAtOnce, RateLimited) as error:
                held.close()
                await refuse(error, scope, receive, send)
                return
            await self.app(scope, receive, send)
