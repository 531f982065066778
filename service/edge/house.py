"""What the edge of one app remembers: its keys, what clients used of their limits, the room for bodies."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from service.edge.budget import ByteBudget
from service.edge.clients import ClientLimits
from service.edge.places import Places
from service.edge.wire import Wire
from service.keys import KeyRing, parse_keys
from service.settings import Settings


@dataclass(frozen=True)
class House:
    """The edge's memory; all of it is used in the event loop alone, but for the keys, which a thread reads again."""

    keys: KeyRing
    limits: ClientLimits
    budget: ByteBudget

    @classmethod
    def of(cls, settings: Settings) -> "House":
        """Begin as the settings say.

        Raises:
            BrokenKeys: the file of API keys can't be read.
        """
        fixed = settings.api_keys
        keys = () if fixed is None else parse_keys(fixed.get_secret_value().replace(",", "\n"))
        return cls(
            KeyRing(keys, settings.api_keys_file),
            ClientLimits(settings.rate_limit, settings.client_concurrency),
            ByteBudget(settings.max_buffered_bytes),
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
            self.budget,
            on_refusal,
            draining,
        )


def house_of(connection: HTTPConnection) -> House:
    """Return the house that a request came to."""
    house: House = connection.app.state.house
    return house
