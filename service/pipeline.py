"""One picture's way: bytes -> Picture -> tiles -> Picture; what the HTTP routes and the command line share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from service.catalogue import Catalogue
from service.codec import Format, Header, Picture, PictureLimits, answer_format
from service.enhancer import Enhancement, Enhancer
from service.generator import Generator
from service.scheduler import Job
from service.telemetry import Stopwatch

Overlap = Literal["fast", "balanced", "max"]

_OVERLAPS: Final = {"fast": 16, "max": 64}


class Decoder(Protocol):
    """What reads files: `codec` in this process, or a `DecodePool` in others."""

    def read_header(self, data: bytes, limits: PictureLimits) -> Header:
        """As `codec.read_header`."""

    def decode(self, data: bytes, header: Header) -> Picture:
        """As `codec.decode`."""


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

    def read_header(self, data: bytes) -> Header:
        """Read a file's header within this pipeline's limits; raises as the decoder."""
        return self._decoder.read_header(data, self._limits)

    def decode(self, data: bytes, header: Header) -> Picture:
        """Decode a file that is not to be enhanced; raises as the decoder."""
        return self._decoder.decode(data, header)

    def enhance(
        self,
        data: bytes,
        watch: Stopwatch,
        camera: str | None = None,
        strength: float = 1.0,
        overlap: Overlap = "balanced",
        format_: Format | None = None,
        on_job: Callable[[Job], None] = lambda _: None,
        progress: Callable[[int, int], None] = lambda *_: None,
        *,
        header: Header | None = None,
        keep_source: bool = False,
    ) -> Outcome:
        """Enhance a file; the answer is not encoded yet.

        Args:
            data: the whole file.
            watch: gets the seconds of each stage.
            camera: whose generator; None takes the default.
            strength: 0..1.
            overlap: `balanced` is what the generator recommends, `fast` 16 pixels, `max` 64.
            format_: the answer's format; None takes the file's own, or JPEG where that can't be written.
            on_job: is given the picture's job once it is admitted, so that it can be cancelled.
            progress: as `Enhancer.enhance`.
            header: what `read_header` said of the file, where it was asked already.
            keep_source: whether the answer holds the decoded picture too; it is as large as the enhanced one.

        Raises:
            UnknownCamera, SideTooLong, NotWritable, QueueFull: before the picture is decoded.
            UnsupportedFormat, MalformedPicture, PictureTooLarge: as `codec.read_header` and `codec.decode`.
            DecodingTooCostly, NoDecodeWorker: as `DecodePool`.
            Cancelled, DeadlineExceeded, InferenceFailed, Closed: as `Enhancer.enhance`.
        """
        chosen = camera or self._catalogue.default
        generator = self._catalogue[chosen]
        pixels = _OVERLAPS.get(overlap, generator.spec.overlap)
        header = header or self.read_header(data)
        answer = answer_format(header, format_)
        with self._enhancer.admit(header.height, header.width, chosen, pixels, self._timeout_s) as job:
            on_job(job)
            with watch.stage("decode"):
                source = self.decode(data, header)
            enhancement = self._enhancer.enhance(source, job, pixels, strength, progress)
        watch.add("queue", enhancement.queue_s)
        watch.add("inference", enhancement.inference_s)
        watch.add("blend", enhancement.blend_s)
        return Outcome(source if keep_source else None, enhancement, answer, chosen, generator)
