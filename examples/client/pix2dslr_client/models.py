"""Made by examples/regenerate.py from the OpenAPI document; not to be edited."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Alignment(BaseModel):
    """The part of the picture that was measured, once the reference was registered with it."""

    inliers: Annotated[int, Field(description="Feature matches that agree.", title="Inliers")]
    left: Annotated[int, Field(title="Left")]
    top: Annotated[int, Field(title="Top")]
    width: Annotated[int, Field(title="Width")]
    height: Annotated[int, Field(title="Height")]


class Camera(BaseModel):
    """One generator of the catalogue."""

    name: Annotated[str, Field(title="Name")]
    default: Annotated[bool, Field(title="Default")]
    architecture: Annotated[str, Field(title="Architecture")]
    trained_on: Annotated[str, Field(title="Trained On")]
    psnr: Annotated[
        float | None,
        Field(
            description="dB on kept-back pairs, when it was exported; `trained_on` says against what, if no DSLR.",
            title="Psnr",
        ),
    ]
    ssim: Annotated[float | None, Field(title="Ssim")]
    overlap: Annotated[int, Field(description="Recommended overlap in pixels.", title="Overlap")]
    bytes: Annotated[int, Field(title="Bytes")]
    loaded: Annotated[bool, Field(title="Loaded")]
    device: Annotated[Literal["cuda", "cpu"], Field(title="Device")]


class Cameras(BaseModel):
    """The answer of GET /cameras."""

    cameras: Annotated[list[Camera], Field(title="Cameras")]


class Gain(BaseModel):
    """What enhancing changed: output minus input."""

    psnr: Annotated[float | None, Field(title="Psnr")]
    ssim: Annotated[float, Field(title="Ssim")]
    colour_difference: Annotated[float, Field(title="Colour Difference")]


class Liveness(BaseModel):
    """The answer of GET /livez and /healthz."""

    alive: Annotated[bool, Field(title="Alive")]


class Readiness(BaseModel):
    """The answer of GET /readyz."""

    ready: Annotated[bool, Field(title="Ready")]
    reasons: Annotated[list[str], Field(description="Why not, where it is not ready.", title="Reasons")]
    device: Annotated[Literal["cuda", "cpu"] | None, Field(title="Device")] = None
    devices: Annotated[
        dict[str, bool],
        Field(description="Whether each works, by name, such as `cuda:1`; one is enough to be ready.", title="Devices"),
    ] = {}
    provider: Annotated[
        str | None, Field(description="ONNX Runtime's execution provider, read back.", title="Provider")
    ] = None
    cameras: Annotated[list[str], Field(title="Cameras")] = []


class Scores(BaseModel):
    """How near a picture is to its reference."""

    psnr: Annotated[
        float | None, Field(description="dB over all samples, 8 bits; null where they are equal.", title="Psnr")
    ]
    ssim: Annotated[float, Field(description="-1..1: Gaussian window 11, sigma 1.5, mean over RGB.", title="Ssim")]
    colour_difference: Annotated[
        float, Field(description="Mean CIE76 difference in CIELAB.", title="Colour Difference")
    ]


class BatchError(BaseModel):
    """One picture of several that failed."""

    type: Annotated[str, Field(description="Stable: urn:pix2dslr:problem: and the problem's name.", title="Type")]
    title: Annotated[str, Field(title="Title")]
    status: Annotated[int, Field(title="Status")]
    detail: Annotated[str, Field(description="What to do.", title="Detail")]
    request_id: Annotated[str, Field(title="Request Id")]
    index: Annotated[int, Field(description="Its place in the request, from 0.", ge=0, title="Index")]
    name: Annotated[str, Field(description="Its name, as it came.", title="Name")]


class BatchErrors(BaseModel):
    """What `errors.json` holds, the last entry of the zip that answers several pictures."""

    errors: Annotated[list[BatchError], Field(title="Errors")]


class EnhanceOptions(BaseModel):
    """Options of POST /enhance."""

    model_config = ConfigDict(
        extra="forbid",
    )
    camera: Annotated[
        str | None,
        Field(
            description="Whose generator, in upper or lower case; GET /cameras lists them.",
            examples=["iphone"],
            title="Camera",
        ),
    ] = None
    strength: Annotated[
        float,
        Field(
            description="0 gives the picture as it came and computes nothing, 1 the generator's answer.",
            examples=[0.5],
            ge=0.0,
            le=1.0,
            title="Strength",
        ),
    ] = 1.0
    overlap: Annotated[
        Literal["fast", "balanced", "max"],
        Field(
            description="Pixels that tiles share: fast 16, balanced as the generator recommends, max 64.",
            examples=["max"],
            title="Overlap",
        ),
    ] = "balanced"
    format: Annotated[
        Literal["jpeg", "png", "webp", "tiff", "bmp", "heic", "avif"] | None,
        Field(
            description="The answer's format, also as jpg, tif, PNG. Default: by the Accept header, else as it came.",
            examples=["png"],
            title="Format",
        ),
    ] = None
    encoder_quality: Annotated[
        int,
        Field(
            description="Quality of JPEG, WebP, HEIC and AVIF; WebP is lossless at 100.",
            examples=[90],
            ge=1,
            le=100,
            title="Encoder Quality",
        ),
    ] = 95
    metadata: Annotated[
        Literal["keep", "strip"],
        Field(
            description="Whether EXIF, XMP, IPTC and texts go along; the colour profile always does.",
            examples=["strip"],
            title="Metadata",
        ),
    ] = "keep"


class EvaluateOptions(BaseModel):
    """Options of POST /evaluate."""

    model_config = ConfigDict(
        extra="forbid",
    )
    camera: Annotated[
        str | None,
        Field(
            description="Whose generator, in upper or lower case; GET /cameras lists them.",
            examples=["iphone"],
            title="Camera",
        ),
    ] = None
    strength: Annotated[
        float,
        Field(
            description="0 gives the picture as it came and computes nothing, 1 the generator's answer.",
            examples=[0.5],
            ge=0.0,
            le=1.0,
            title="Strength",
        ),
    ] = 1.0
    overlap: Annotated[
        Literal["fast", "balanced", "max"],
        Field(
            description="Pixels that tiles share: fast 16, balanced as the generator recommends, max 64.",
            examples=["max"],
            title="Overlap",
        ),
    ] = "balanced"
    align: Annotated[
        bool,
        Field(
            description="Register the reference with the picture first; they may then differ in size.",
            examples=[True],
            title="Align",
        ),
    ] = False


class ProblemDetails(BaseModel):
    """An error (RFC 9457, application/problem+json)."""

    type: Annotated[str, Field(description="Stable: urn:pix2dslr:problem: and the problem's name.", title="Type")]
    title: Annotated[str, Field(title="Title")]
    status: Annotated[int, Field(title="Status")]
    detail: Annotated[str, Field(description="What to do.", title="Detail")]
    request_id: Annotated[str, Field(title="Request Id")]


class Evaluation(BaseModel):
    """The answer of POST /evaluate."""

    camera: Annotated[str, Field(title="Camera")]
    device: Annotated[Literal["cuda", "cpu"], Field(title="Device")]
    width: Annotated[int, Field(title="Width")]
    height: Annotated[int, Field(title="Height")]
    tiles: Annotated[int, Field(title="Tiles")]
    input: Scores
    output: Scores
    gain: Gain
    seam_index: Annotated[
        float | None,
        Field(
            description="Gradient of the change across tile borders over that elsewhere; 1 is invisible.",
            title="Seam Index",
        ),
    ]
    alignment: Alignment | None
    timings: Annotated[dict[str, float], Field(description="Seconds by stage.", title="Timings")]
