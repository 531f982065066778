"""What is held for clients: bodies as they come, files of zips once unzipped, pictures under way, answers until read.

Each is in a budget of its own, and all count for their client: who holds much sends no more until it is gone.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from starlette.types import Scope

from service.edge.budget import ByteBudget, Reservation

HELD: Final = "pix2dslr.held"
"""Where a request's scope has what is held for it."""

ABORT: Final = "pix2dslr.abort"
"""Where it has what ends the connection."""

_SMALL_PICTURE: Final = 24 << 20
"""Bytes that a picture of a megapixel or two takes; a part of the room is theirs, so that none waits for large ones."""


class Rooms:
    """The budgets of one app."""

    def __init__(self, most_bodies: int, most_unzipped: int, most_pictures: int) -> None:
        """Begin with nothing held.

        Args:
            most_bodies: bytes of bodies.
            most_unzipped: bytes of files of zips that were unzipped.
            most_pictures: bytes of pictures that are decoded, enhanced or encoded, and of answers.
        """
        self.most_pictures = most_pictures
        self.bodies = ByteBudget(most_bodies)
        self.unzipped = ByteBudget(most_unzipped, small=0)
        self.pictures = ByteBudget(most_pictures - most_pictures // 8, small=0)
        self._small_pictures = ByteBudget(most_pictures // 8, small=0)

    def open(
        self, client: str, give_way: Callable[[], None] | None = None, abort: Callable[[], None] | None = None
    ) -> "Held":
        """Begin to hold bytes for a client's request.

        Args:
            client: whose.
            give_way: as `ByteBudget.open` has it, of the body while it comes.
            abort: likewise, of the answer while it is read.
        """
        return Held(self, client, give_way, abort)

    @property
    def picture_bytes(self) -> int:
        """Bytes that pictures under way and answers are counted with."""
        return self.pictures.taken + self._small_pictures.taken

    @property
    def waiting(self) -> int:
        """How many files of zips and pictures wait for room."""
        return self.unzipped.waiting + self.pictures.waiting + self._small_pictures.waiting

    @asynccontextmanager
    async def picture(self, client: str, bytes_: int, check: Callable[[], None]) -> AsyncIterator[None]:
        """Hold what one picture takes while it is under way, as soon as there is room for it.

        Args:
            client: whose.
            bytes_: how many. None counts for more than half of all: the rest is left for others.
            check: called now and then while it waits; what it raises ends the waiting.
        """
        budget = self._small_pictures if bytes_ <= _SMALL_PICTURE else self.pictures
        place = budget.open(client)
        try:
            await place.wait(min(bytes_, budget.most // 2), check)
            yield
        finally:
            place.close()


class Held:
    """What is held for one request, or for one message of a WebSocket and its answer.

    Attributes:
        client: whose it is.
        body: its body.
    """

    def __init__(
        self, rooms: Rooms, client: str, give_way: Callable[[], None] | None, abort: Callable[[], None] | None
    ) -> None:
        self.client = client
        self.body = rooms.bodies.open(client, give_way)
        self._rooms = rooms
        self._answers = rooms.pictures.open(client, abort)

    @asynccontextmanager
    async def unzipped(self, bytes_: int) -> AsyncIterator[None]:
        """Hold what a file of a zip unzips to, as soon as there is room for it; 0 where it is none of a zip."""
        file: Reservation = self._rooms.unzipped.open(self.client)
        try:
            await file.wait(bytes_)
            self.body.count(bytes_)
            try:
                yield
            finally:
                self.body.uncount(bytes_)
        finally:
            file.close()

    def answer(self, bytes_: int) -> None:
        """Hold an answer, or a part of one, that is made."""
        self._answers.add(bytes_)
        self.body.count(bytes_)

    def answered(self, bytes_: int) -> None:
        """Hold the whole answer, and the body no more."""
        self.body.give(self.body.bytes)
        self.answer(bytes_)

    def sent(self, bytes_: int) -> None:
        """Hold a part of it no more."""
        self._answers.give(bytes_)
        self.body.uncount(bytes_)

    @property
    def answers(self) -> int:
        """Bytes of answers that are made and not sent."""
        return self._answers.bytes

    @property
    def bytes(self) -> int:
        """All that is counted."""
        return self.body.bytes + self.body.besides

    def close(self) -> None:
        """Hold nothing any more; may be called again."""
        self.body.close()
        self._answers.close()


def held_of(scope: Scope) -> Held:
    """Return what is held for a request."""
    held: Held = scope[HELD]
    return held
