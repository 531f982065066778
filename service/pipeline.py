"""One picture's way: bytes -> Picture -> tiles -> Picture; what the HTTP routes and the command line share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from service import codec
from service.caller import NOBODY, Caller
from service.catalogue import Catalogue
from service.codec import Format, Header, Picture, PictureLimits, answer_format
from service.enhancer import Enhancement, Enhancer
from service.generator import Generator
from service.scheduler import Job
from service.telemetry import Stopwatch

Overlap = Literal["fast", "balanced", "max"]

_OVERLAPS: Final = {"fast": 16, "max": 64}

_ANY: Final = 4 << 20
"""Bytes that the smallest picture takes: tiles on their way, libraries' tables."""
_DECODING: Final[Mapping[Format, int]] = {
    "jpeg": 10,
    "png": 25,
    "webp": 15,
    "tiff": 40,
    "bmp": 15,
    "heic": 60,
    "avif": 22,
}
"""Bytes a pixel that decoding took at most, with alpha and 16 bits: the worker's, and the picture's here."""
_INKS: Final = 20
"""Likewise a JPEG of four inks."""
_ENCODING: Final[Mapping[Format, tuple[int, int]]] = {
    "jpeg": (6, 33),
    "png": (8, 25),
    "webp": (20, 33),
    "tiff": (8, 23),
    "bmp": (10, 33),
    "heic": (31, 80),
    "avif": (48, 60),
}
"""Bytes a pixel that a picture took while it was encoded: from a JPEG, and with alpha and 16 bits. Enhancing takes
less: 14, or 6 from a JPEG."""


def measured(ticket: "Ticket", reference: Header) -> "Ticket":
    """Return the ticket of a picture that is measured against a reference besides."""
    return replace(ticket, memory=2 * ticket.memory + _memory_of(reference, reference.format))


def _memory_of(header: Header, format_: Format) -> int:
    """Return how many bytes a picture takes at most while it is decoded, enhanced and encoded."""
    plain, rich = _ENCODING[format_]
    decoding = _INKS if header.inks else _DECODING[header.format]
    return _ANY + header.height * header.width * max(decoding, plain if header.format == "jpeg" else rich)


class Decoder(Protocol):
    """What reads files: `InProcess` here, or a `DecodePool` in other processes."""

    def read_header(self, data: bytes, limits: PictureLimits, caller: Caller) -> Header:
        """As `codec.read_header`, for a caller; raises `Cancelled` once that does not wait any more."""

    def decode(self, data: bytes, header: Header, caller: Caller) -> Picture:
        """As `codec.decode`, likewise."""


class InProcess:
    """Reads files in this process."""

    def read_header(self, data: bytes, limits: PictureLimits, caller: Caller) -> Header:
        """As `codec.read_header`."""
        caller.cancellation.check()
        return codec.read_header(data, limits)

    def decode(self, data: bytes, header: Header, caller: Caller) -> Picture:
        """As `codec.decode`."""
        caller.cancellation.check()
        return codec.decode(data, header)


@dataclass(frozen=True)
class Ticket:
    """A file that has its place in the queue.

    Attributes:
        data: the whole file.
        header: what it says of itself.
        format: the format to answer in.
        camera: whose generator it is for.
        generator: the generator.
        overlap: of its tiles, in pixels.
        job: its place, which closing gives back.
        caller: for whom it is.
        memory: bytes that it takes while it is under way, in all processes.
    """

    data: bytes
    header: Header
    format: Format
    camera: str
    generator: Generator
    overlap: int
    job: Job
    caller: Caller
    memory: int


@dataclass(frozen=True)
class Outcome:
    """An enhanced picture.

    Attributes:
        source: the decoded picture, where it was asked for.
        enhancement: what became of it.
        format: the format to answer in.
        camera: whose generator was used.
        generator: the generator.
    """

    source: Picture | None
    enhancement: Enhancement
    format: Format
    camera: str
    generator: Generator


class Pipeline:
    """Enhances files; one instance serves any number of threads."""

    def __init__(
        self, decoder: Decoder, catalogue: Catalogue, enhancer: Enhancer, limits: PictureLimits, timeout_s: float
    ) -> None:
        """Connect the parts.

        Args:
            decoder: what reads files.
            catalogue: the generators.
            enhancer: what enhances decoded pictures.
            limits: what a file may claim.
            timeout_s: seconds that a picture may take.
        """
        self._decoder = decoder
        self._catalogue = catalogue
        self._enhancer = enhancer
        self._limits = limits
        self._timeout_s = timeout_s

    def read_header(self, data: bytes, caller: Caller = NOBODY) -> Header:
        """Read a file's header within this pipeline's limits; raises as the decoder."""
        return self._decoder.read_header(data, self._limits, caller)

    def decode(self, data: bytes, header: Header, caller: Caller = NOBODY) -> Picture:
        """Decode a file that is not to be enhanced; raises as the decoder."""
        return self._decoder.decode(data, header, caller)

    def admit(
        self,
        data: bytes,
        camera: str | None = None,
        overlap: Overlap = "balanced",
        format_: Format | None = None,
        caller: Caller = NOBODY,
        header: Header | None = None,
        strength: float = 1.0,
    ) -> Ticket:
        """Give a file its place in the queue, before it is decoded; whoever asks closes the ticket's job.

        Args:
            data: the whole file.
            camera: whose generator; None takes the default.
            overlap: `balanced` is what the generator recommends, `fast` 16 pixels, `max` 64.
            format_: the answer's format; None takes the file's own, or JPEG where that can't be written.
            caller: for whom it is; giving up cancels the picture's job.
            header: what `read_header` said of the file, where it was asked already.
            strength: as `enhance` will get it; at 0 a full queue is no obstacle.

        Raises:
            UnknownCamera, SideTooLong, NotWritable: it can't be done.
            UnsupportedFormat, MalformedPicture, PictureTooLarge, DecodingTooCostly, NoDecodeWorker: as the decoder.
            Cancelled: the caller gave up.
            QueueFull, Closed: as `Enhancer.admit`.
        """
        chosen = self._catalogue.named(camera)
        generator = self._catalogue[chosen]
        pixels = _OVERLAPS.get(overlap, generator.spec.overlap)
        header = header or self.read_header(data, caller)
        answer = answer_format(header, format_)
        job = self._enhancer.admit(
            header.height, header.width, chosen, pixels, self._timeout_s, strength, caller.client
        )
        caller.cancellation.attach(job)
        return Ticket(data, header, answer, chosen, generator, pixels, job, caller, _memory_of(header, answer))

    def enhance(
        self,
        ticket: Ticket,
        watch: Stopwatch,
        strength: float = 1.0,
        progress: Callable[[int, int], None] = lambda *_: None,
        *,
        keep_source: bool = False,
    ) -> Outcome:
        """Enhance a file that has its place; the answer is not encoded yet.

        Args:
            ticket: its place, from `admit` with the same strength.
            watch: gets each stage, and what is told of the picture.
            strength: 0..1.
            progress: as `Enhancer.enhance`.
            keep_source: whether the answer holds the decoded picture too; it is as large as the enhanced one.

        Raises:
            MalformedPicture, DecodingTooCostly, NoDecodeWorker: as the decoder.
            Cancelled, DeadlineExceeded, InferenceFailed, Closed: as `Enhancer.enhance`.
        """
        watch.facts = {
            "camera": ticket.camera,
            "device": ticket.generator.device,
            "tiles": ticket.job.tiles,
            "pixels": ticket.header.height * ticket.header.width,
        }
        ticket.job.check()
        with watch.stage("decode"):
            source = self.decode(ticket.data, ticket.header, ticket.caller)
        enhancement = self._enhancer.enhance(source, ticket.job, ticket.overlap, strength, progress, watch)
        kept = source if keep_source else None
        return Outcome(kept, enhancement, ticket.format, ticket.camera, ticket.generator)
