"""What the edge refuses a client for; service/problems.py says it in words."""


class Refused(Exception):
    """The edge does not take the request."""


class Unauthorized(Refused):
    """The request brings no API key that is known."""


class UnknownHost(Refused):
    """The request's Host header names none that the service answers for."""


class OtherOrigin(Refused):
    """A browser sends the request for a page of another origin."""


class TooSlow(Refused):
    """The request came too slowly.

    Attributes:
        seconds: within which more had to come.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too slow for {seconds:g} s")
        self.seconds = seconds


class RateLimited(Refused):
    """A client sent more pictures, or tiles of pictures, than it may.

    Attributes:
        limit: how many a minute.
        retry_after: seconds until it may send the next.
        unit: of what.
    """

    def __init__(self, limit: int, retry_after: int, unit: str = "pictures") -> None:
        super().__init__(f"more than {limit} {unit} a minute")
        self.limit = limit
        self.retry_after = retry_after
        self.unit = unit


class TooManyAtOnce(Refused):
    """A client has as many requests under way as it may.

    Attributes:
        limit: how many.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} requests at once")
        self.limit = limit


class NoRoom(Refused):
    """There is no room in memory for the request's body now."""


class TooManyConnections(Refused):
    """As many connections are open as may be."""
