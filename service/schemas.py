"""What the API takes and answers."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from service.catalogue import Catalogue
from service.codec import Format
from service.pipeline import Overlap


class _Options(BaseModel):
    """Options that every picture takes: form fields, or query parameters."""

    model_config = ConfigDict(extra="forbid")

    camera: Annotated[str | None, Field(description="Whose generator; GET /cameras lists them.")] = None
    strength: Annotated[
        float, Field(ge=0, le=1, description="0 gives the picture as it came, 1 the generator's answer.")
    ] = 1.0
    overlap: Annotated[
        Overlap, Field(description="Pixels that tiles share: fast 16, balanced as the generator recommends, max 64.")
    ] = "balanced"


class EvaluateOptions(_Options):
    """Options of POST /evaluate."""

    align: Annotated[
        bool, Field(description="Register the reference with the picture first; they may then differ in size.")
    ] = False


class EnhanceOptions(_Options):
    """Options of POST /enhance."""

    format: Annotated[
        Format | None, Field(description="The answer's format. Default: by the Accept header, else as it came.")
    ] = None
    encoder_quality: Annotated[
        int, Field(ge=1, le=100, description="Quality of JPEG and WebP; WebP is lossless at 100.")
    ] = 95
    metadata: Annotated[
        Literal["keep", "strip"], Field(description="Whether EXIF and the colour profile go along.")
    ] = "keep"


class Scores(BaseModel):
    """How near a picture is to its reference."""

    psnr: Annotated[float | None, Field(description="dB over all samples, 8 bits; null where they are equal.")]
    ssim: Annotated[float, Field(description="-1..1: Gaussian window 11, sigma 1.5, mean over RGB.")]
    colour_difference: Annotated[float, Field(description="Mean CIE76 difference in CIELAB.")]


class Gain(BaseModel):
    """What enhancing changed: output minus input."""

    psnr: float | None
    ssim: float
    colour_difference: float


class Alignment(BaseModel):
    """The part of the picture that was measured, once the reference was registered with it."""

    inliers: Annotated[int, Field(description="Feature matches that agree.")]
    left: int
    top: int
    width: int
    height: int


class Evaluation(BaseModel):
    """The answer of POST /evaluate."""

    camera: str
    device: Literal["cuda", "cpu"]
    width: int
    height: int
    tiles: int
    input: Scores
    output: Scores
    gain: Gain
    seam_index: Annotated[
        float | None,
        Field(description="Gradient of the change across tile borders over that elsewhere; 1 is invisible."),
    ]
    alignment: Alignment | None
    timings: Annotated[dict[str, float], Field(description="Seconds by stage.")]


class Camera(BaseModel):
    """One generator of the catalogue."""

    name: str
    default: bool
    architecture: str
    trained_on: str
    psnr: Annotated[
        float | None,
        Field(description="dB on kept-back pairs, when it was exported; `trained_on` says against what, if no DSLR."),
    ]
    ssim: float | None
    overlap: Annotated[int, Field(description="Recommended overlap in pixels.")]
    bytes: int
    loaded: bool
    device: Literal["cuda", "cpu"]

    @classmethod
    def of(cls, catalogue: Catalogue, name: str) -> Self:
        """Describe one generator of a catalogue; raises UnknownCamera."""
        generator = catalogue[name]
        spec = generator.spec
        return cls(
            name=name,
            default=name == catalogue.default,
            architecture=spec.architecture,
            trained_on=spec.trained_on,
            psnr=spec.psnr,
            ssim=spec.ssim,
            overlap=spec.overlap,
            bytes=catalogue.file_bytes(name),
            loaded=True,
            device=generator.device,
        )


class Cameras(BaseModel):
    """The answer of GET /cameras."""

    cameras: list[Camera]


class Readiness(BaseModel):
    """The answer of GET /readyz."""

    ready: bool
    reasons: Annotated[list[str], Field(description="Why not, where it is not ready.")]
    device: Literal["cuda", "cpu"] | None = None
    provider: Annotated[str | None, Field(description="ONNX Runtime's execution provider, read back.")] = None
    cameras: list[str] = []


class Liveness(BaseModel):
    """The answer of GET /livez and /healthz."""

    alive: bool


class ProblemDetails(BaseModel):
    """An error (RFC 9457, application/problem+json)."""

    type: Annotated[str, Field(description="Stable: urn:pix2dslr:problem: and the problem's name.")]
    title: str
    status: int
    detail: Annotated[str, Field(description="What to do.")]
    request_id: str
