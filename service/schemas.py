"""What the API takes and answers."""

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from service.catalogue import Catalogue
from service.codec import Format, format_named
from service.pipeline import Overlap


def _example(**values: JsonValue) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [values]})


def _own_name(value: object) -> object:
    return format_named(value) if isinstance(value, str) else value


class _Options(BaseModel):
    """Options that every picture takes: form fields, or query parameters."""

    model_config = ConfigDict(extra="forbid")

    camera: Annotated[
        str | None,
        Field(description="Whose generator, in upper or lower case; GET /cameras lists them.", examples=["iphone"]),
    ] = None
    strength: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="0 gives the picture as it came and computes nothing, 1 the generator's answer.",
            examples=[0.5],
        ),
    ] = 1.0
    overlap: Annotated[
        Overlap,
        Field(
            description="Pixels that tiles share: fast 16, balanced as the generator recommends, max 64.",
            examples=["max"],
        ),
    ] = "balanced"


class EvaluateOptions(_Options):
    """Options of POST /evaluate."""

    align: Annotated[
        bool,
        Field(
            description="Register the reference with the picture first; they may then differ in size.",
            examples=[True],
        ),
    ] = False


class EnhanceOptions(_Options):
    """Options of POST /enhance."""

    format: Annotated[
        Format | None,
        BeforeValidator(_own_name),
        Field(
            description="The answer's format, also as jpg, tif, PNG. Default: by the Accept header, else as it came.",
            examples=["png"],
        ),
    ] = None
    encoder_quality: Annotated[
        int,
        Field(
            ge=1,
            le=100,
            description="Quality of JPEG, WebP, HEIC and AVIF; WebP is lossless at 100.",
            examples=[90],
        ),
    ] = 95
    metadata: Annotated[
        Literal["keep", "strip"],
        Field(
            description="Whether EXIF, XMP, IPTC and texts go along; the colour profile always does.",
            examples=["strip"],
        ),
    ] = "keep"


class LiveOptions(EnhanceOptions):
    """Options of WS /live: they hold for the pictures that come after them."""

    type: Literal["options"] = "options"
    mode: Annotated[
        Literal["photo", "live"],
        Field(description="Photos are done one after the other; of live frames only the latest waits."),
    ] = "photo"
    seam_index: Annotated[bool, Field(description="Whether to measure it.")] = False


class LiveCancel(BaseModel):
    """Gives up the work of WS /live."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["cancel"]
    frame: Annotated[int | None, Field(ge=1, description="Which; None gives up all.")] = None


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

    model_config = _example(
        camera="iphone",
        device="cpu",
        width=600,
        height=400,
        tiles=35,
        input={"psnr": 17.31, "ssim": 0.679, "colour_difference": 15.8},
        output={"psnr": 22.65, "ssim": 0.8095, "colour_difference": 8.5},
        gain={"psnr": 5.34, "ssim": 0.1305, "colour_difference": -7.3},
        seam_index=1.0,
        alignment=None,
        timings={"decode": 0.009, "queue": 0.004, "inference": 0.061, "blend": 0.002, "quality": 0.2, "total": 0.28},
    )

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

    model_config = _example(
        cameras=[
            {
                "name": "iphone",
                "default": True,
                "architecture": "unet128-s2d",
                "trained_on": "DPED iPhone 3GS / Canon 70D patches",
                "psnr": 22.65,
                "ssim": 0.8095,
                "overlap": 32,
                "bytes": 9_504_323,
                "loaded": True,
                "device": "cpu",
            }
        ]
    )

    cameras: list[Camera]


class Readiness(BaseModel):
    """The answer of GET /readyz."""

    model_config = _example(
        ready=True,
        reasons=[],
        device="cpu",
        devices={"cpu": True},
        provider="CPUExecutionProvider",
        cameras=["blackberry", "iphone", "sony"],
    )

    ready: bool
    reasons: Annotated[list[str], Field(description="Why not, where it is not ready.")]
    device: Literal["cuda", "cpu"] | None = None
    devices: Annotated[
        dict[str, bool], Field(description="Whether each works, by name, such as `cuda:1`; one is enough to be ready.")
    ] = {}
    provider: Annotated[str | None, Field(description="ONNX Runtime's execution provider, read back.")] = None
    cameras: list[str] = []


class Liveness(BaseModel):
    """The answer of GET /livez and /healthz."""

    model_config = _example(alive=True)

    alive: bool


IF_NONE_MATCH: Final = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "`ETag`s of answers that the client has; 304 where the answer would be one of them.",
    "schema": {"type": "string", "examples": ['"9f86d081884c7d65"']},
}
"""The header, in OpenAPI."""


class ProblemDetails(BaseModel):
    """An error (RFC 9457, application/problem+json)."""

    type: Annotated[str, Field(description="Stable: urn:pix2dslr:problem: and the problem's name.")]
    title: str
    status: int
    detail: Annotated[str, Field(description="What to do.")]
    request_id: str


class BatchError(ProblemDetails):
    """One picture of several that failed."""

    index: Annotated[int, Field(ge=0, description="Its place in the request, from 0.")]
    name: Annotated[str, Field(description="Its name, as it came.")]


class BatchErrors(BaseModel):
    """What `errors.json` holds, the last entry of the zip that answers several pictures."""

    errors: list[BatchError]
