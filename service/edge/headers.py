"""Whom the service answers for, and what browsers may do with its answers."""

import ipaddress
from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.edge.errors import UnknownHost
from service.edge.refusal import refuse

SECURITY_HEADERS: Final = {
    # pages of ours bring their own; anything else is no page, whatever a browser takes it for
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # who may read answers from elsewhere is CORS's to say, which this leaves alone
    "Cross-Origin-Resource-Policy": "same-origin",
    # what may be kept says so itself
    "Cache-Control": "no-store",
}
"""On every answer that does not say otherwise. HSTS is the proxy's, which alone knows what else is on the host."""


class SecurityHeaders:
    """Adds `SECURITY_HEADERS` to every answer that lacks them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers)


class TrustedHosts:
    """Answers 421 to a request for a host that is not ours, such as one that a rebound name of DNS led here.

    Args:
        allowed: names such as `photos.example.org`, and `*.example.org` for all below it; none allows any.
        exempt: paths that are answered whatever the host: probes ask for an address.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str], exempt: frozenset[str]) -> None:
        self.app = app
        self.exact = frozenset(allowed)
        self.endings = tuple(name.removeprefix("*") for name in allowed if name.startswith("*."))
        self.exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and self.exact and scope["path"] not in self.exempt:
            host = host_in(Headers(scope=scope).get("host", ""))
            if host not in self.exact and not host.endswith(self.endings or ("\n",)):
                await refuse(UnknownHost(), scope, receive, send)
                return
        await self.app(scope, receive, send)


def hosts_at(address: str) -> tuple[str, ...]:
    """Return the names by which a service that listens on a loopback address is asked for; none for other addresses.

    A page whose name of DNS was made to lead to the reader's own machine comes with a Host of its own.

    Args:
        address: where the service listens.
    """
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        loopback = address == "localhost"
    return ("localhost", "127.0.0.1", "::1", address) if loopback else ()


def host_in(header: str) -> str:
    """Return the name in a Host header, in lower case, without port and brackets."""
    header = header.strip().lower()
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].removesuffix(".")
