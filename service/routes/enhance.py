"""POST /enhance: a picture in, the enhanced picture out."""

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from service.codec import FORMATS, Format, as_srgb, decode, encode, media_type
from service.pipeline import Outcome
from service.problems import documented
from service.quality import psnr, require_same_size, ssim
from service.routes.upload import Cancellation, Upload, form_schema, read_upload, run_in_thread
from service.schemas import EnhanceOptions
from service.state import State, state_of
from service.telemetry import Stopwatch

router = APIRouter()

_HEADERS = {
    "Server-Timing": "Milliseconds of decode, queue, inference, blend, encode and in total.",
    "X-Pix2DSLR-Camera": "Whose generator was used.",
    "X-Pix2DSLR-Device": "Where it ran: cuda or cpu.",
    "X-Pix2DSLR-Tiles": "How many tiles the picture has.",
    "X-Pix2DSLR-Frames": "How many frames or pages the file has, where it has more than one: the first is answered.",
    "X-PSNR": "dB against the reference, where one came; inf where they are equal.",
    "X-SSIM": "Likewise.",
}


@router.post(
    "/enhance",
    summary="Enhance a picture",
    response_class=Response,
    responses={
        200: {
            "description": "The enhanced picture, of the same size.",
            "content": {media_type(name): {"schema": {"type": "string", "format": "binary"}} for name in FORMATS},
            "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()},
        },
        **documented(400, 413, 415, 422, 429, 500, 503, 504),
    },
    openapi_extra=form_schema(
        EnhanceOptions,
        "The same scene at the same size: X-PSNR and X-SSIM are answered.",
        reference_required=False,
    ),
)
async def enhance(request: Request, accept: Annotated[str, Header()] = "*/*") -> Response:
    """Enhance a JPEG, PNG, WebP, TIFF, BMP, HEIC or AVIF picture of any size up to the limit.

    Send it as the file `image` of a multipart form, or as the raw body with its `image/…` type and the options as
    query parameters.
    """
    upload = await read_upload(request, EnhanceOptions)
    state = state_of(request)
    wanted = upload.options.format or accepted_format(accept)
    return await run_in_thread(request, lambda cancellation: _work(state, upload, wanted, cancellation))


def _work(state: State, upload: Upload[EnhanceOptions], wanted: Format | None, cancellation: Cancellation) -> Response:
    options, pipeline, watch = upload.options, state.pipeline, Stopwatch()
    reference = None if upload.reference is None else pipeline.read_header(upload.reference)
    if reference is not None:
        require_same_size(pipeline.read_header(upload.image), reference)
    outcome = pipeline.enhance(
        upload.image, watch, options.camera, options.strength, options.overlap, wanted, cancellation.attach
    )
    output = outcome.enhancement.picture
    headers = outcome_headers(outcome)
    if upload.reference is not None and reference is not None:
        with watch.stage("quality"):
            shown, truth = as_srgb(output), as_srgb(decode(upload.reference, reference))
            headers["X-PSNR"] = f"{psnr(shown, truth):.3f}"
            headers["X-SSIM"] = f"{ssim(shown, truth):.4f}"
    with watch.stage("encode"):
        body = encode(output, outcome.format, options.encoder_quality, options.metadata == "keep", spend=True)
    headers["Server-Timing"] = watch.server_timing()
    watch.observe(state.metrics)
    return Response(body, media_type=media_type(outcome.format), headers=headers)


def outcome_headers(outcome: Outcome) -> dict[str, str]:
    """Return the headers that say how a picture was enhanced."""
    frames = outcome.enhancement.picture.header.frames
    return {
        **({"X-Pix2DSLR-Frames": str(frames)} if frames > 1 else {}),
        "X-Pix2DSLR-Camera": outcome.camera,
        "X-Pix2DSLR-Device": outcome.generator.device,
        "X-Pix2DSLR-Tiles": str(outcome.enhancement.layout.tiles),
        "Vary": "Accept",
    }


def accepted_format(accept: str) -> Format | None:
    """Return the supported format that an Accept header names with the highest weight, None where it names none.

    A wildcard, or a header that names only other types, leaves the format as it came (RFC 9110, 12.5.1 lets a server
    disregard the header).
    """
    best: tuple[float, Format] | None = None
    for entry in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        for format_ in FORMATS:
            if kind == media_type(format_) and weight > 0 and (best is None or weight > best[0]):
                best = weight, format_
    return None if best is None else best[1]
