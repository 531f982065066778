"""How many bytes of request bodies may be in memory at once. Pure; for one event loop."""

from collections import Counter
from typing import Final

from service.edge.errors import NoRoom

_SMALL: Final = 1 << 20
"""Bytes of a body for which the last eighth is kept, so that a few large ones don't shut everyone out."""


class ByteBudget:
    """Bytes that bodies may take together."""

    def __init__(self, most: int) -> None:
        """Begin with none taken.

        Args:
            most: bytes that may be taken at once.
        """
        self._most = most
        self._taken = 0
        self._by_client: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """Bytes that are taken now."""
        return self._taken

    def open(self, client: str) -> "Reservation":
        """Return an empty reservation of a client's; it has to be closed."""
        return Reservation(self, client)

    def take(self, client: str, more: int, together: int) -> None:
        """Take `more` bytes for a body that then has `together`.

        Raises:
            NoRoom: they are too many for now; none is taken. A body that is alone is always taken.
        """
        held = self._taken + more
        if self._taken > together - more:  # others hold some, too
            limit = self._most if together <= _SMALL else self._most - self._most // 8
            share = self._by_client[client] + more
            if held > limit or (share > self._most // 2 and share > together):
                raise NoRoom
        self._taken = held
        self._by_client[client] += more

    def give(self, client: str, bytes_: int) -> None:
        """Give bytes back."""
        self._taken -= bytes_
        self._by_client[client] -= bytes_
        if not self._by_client[client]:
            del self._by_client[client]


class Reservation:
    """What one body takes of the budget."""

    def __init__(self, budget: ByteBudget, client: str) -> None:
        self._budget = budget
        self._client = client
        self._bytes = 0

    def need(self, together: int) -> None:
        """Take as much as makes it `together` bytes; what it has already is no news.

        Raises:
            NoRoom: there is too little left; it keeps what it has.
        """
        if together > self._bytes:
            self._budget.take(self._client, together - self._bytes, together)
            self._bytes = together

    def close(self) -> None:
        """Give everything back; may be called again."""
        if self._bytes:
            self._budget.give(self._client, self._bytes)
            self._bytes = 0
